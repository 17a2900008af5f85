"""`--engine ray`: the same run over the nodes of a Ray cluster, as a Ray Data pipeline.

    feed (planned batches) -> read (tasks) -> edit (one actor a GPU) -> write (tasks) -> driver

The driver is the process that the user started. It keeps what the plain run keeps: source, checks, plan, lock,
journal, report, page. Small descriptions of planned batches flow to the nodes, small outcomes flow back; pictures
never pass through the driver. Starting processes, placing them, back-pressure, memory of the cluster, retries and
restarts are Ray's.

Why the driver gives a picture its final name: a node leaves a complete file under a temporary name in the output
folder, and the driver renames it just before it writes the record. So a task that Ray runs twice, or one of an earlier
driver that still runs somewhere, cannot touch a finished picture, and each item has one record. No torch here.
"""
