// One item in full: two of its pictures with a slider between them, or the difference alone.
'use strict';
joyedit.pairsViewer = (() => {
  const { make, by } = joyedit;
  const KINDS = [['ab', 'A | B'], ['ia', 'Input | A'], ['ib', 'Input | B'], ['d', 'Difference']];
  const LABELS = { a: 'A', b: 'B', i: 'input' };
  let item = null;
  let kind = 'ab';
  const dialog = () => by('viewer');

  function begin() {
    joyedit.compare.begin();
    by('viewer-close').onclick = () => dialog().close();
    by('viewer-previous').onclick = () => step(-1);
    by('viewer-next').onclick = () => step(1);
    by('viewer-zoom').onclick = () => zoom();
    KINDS.forEach(([value, text], at) => {
      const button = make('button', '', text);
      button.type = 'button';
      button.title = `${at + 1}`;
      button.onclick = () => { kind = value; show(item); };
      by('viewer-kinds').append(button);
    });
    dialog().addEventListener('close', () => {
      item = null;
      document.documentElement.classList.remove('still');
      by('list').focus({ preventScroll: true });
    });
    dialog().addEventListener('keydown', key);
  }

  function open(one) {
    if (!one) return;
    if (!dialog().open) {
      document.documentElement.classList.add('still');
      dialog().showModal();
      by('stage').focus({ preventScroll: true });
    }
    show(one);
  }

  // The largest that there is of a picture: a copy where browsers do not show the file itself.
  function picture(one, side) {
    if (side === 'i') return one.in && !/\.(tiff?|hei[cf])$/i.test(one.in) ? one.in : one.si && joyedit.path(one.si);
    const view = one[`v${side}`];
    return view ? joyedit.path(view) : one[side] || (one[`s${side}`] && joyedit.path(one[`s${side}`])) || '';
  }

  function show(one) {
    item = one;
    const at = joyedit.pairs.at();
    const count = joyedit.pairs.order().length;
    by('viewer-place').textContent = `${joyedit.number(at + 1)} / ${joyedit.number(count)}`;
    by('viewer-id').textContent = one.id;
    by('viewer-figures').textContent = [joyedit.pairs.NAMES[one.state], joyedit.pairs.figures(one)].filter(Boolean).join(', ');
    by('viewer-text').textContent = [one.text, one.differ, one.why].filter(Boolean).join(' · ');
    by('viewer-previous').disabled = at === 0;
    by('viewer-next').disabled = at + 1 >= count;
    [...by('viewer-kinds').children].forEach((button, n) => button.setAttribute('aria-pressed', KINDS[n][0] === kind));
    if (kind === 'd') {
      joyedit.compare.show(one.vd ? joyedit.path(one.vd) : '', '', one.size, 'contain');
      return;
    }
    const [left, right] = kind;
    by('tag-left').textContent = LABELS[left];
    by('tag-right').textContent = LABELS[right];
    joyedit.compare.show(picture(one, right) || '', picture(one, left) || '', one.size, 'contain');
  }

  function step(by) {
    const next = joyedit.pairs.order()[joyedit.pairs.at() + by];
    if (!next) return;
    joyedit.pairs.setActive(joyedit.pairs.at() + by);
    show(next);
  }

  function zoom() {
    joyedit.compare.whole(!joyedit.compare.isWhole());
    by('viewer-zoom').setAttribute('aria-pressed', joyedit.compare.isWhole());
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const slide = { ArrowLeft: -2, ArrowRight: 2, ArrowDown: -2, ArrowUp: 2 }[event.key];
    if (event.target === by('compare-handle') && slide !== undefined) joyedit.compare.by(slide);
    else if (event.key === 'ArrowLeft' || event.key === 'ArrowUp') step(-1);
    else if (event.key === 'ArrowRight' || event.key === 'ArrowDown') step(1);
    else if (/^[1-4]$/.test(event.key)) { kind = KINDS[Number(event.key) - 1][0]; show(item); }
    else if (event.key === 'z' || event.key === 'Z') zoom();
    else if (event.key === '[') joyedit.compare.by(-5);
    else if (event.key === ']') joyedit.compare.by(5);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return { begin, open };
})();
