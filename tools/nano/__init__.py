"""The pictures, edits and proofs that the embedded model `nano` is trained and judged on.

Everything here is drawn by this project itself: scenes of coloured things (`scenes`), pairs of scenes with an
instruction between them (`edits`, `wording`), what tells from pixels alone whether an edit happened
(`measure`), the small tokenizer (`tokenizer`) and the endless stream for training (`stream`). None of it
needs torch.
"""
