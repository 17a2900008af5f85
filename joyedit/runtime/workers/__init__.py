"""`--gpus`: a worker process for each GPU, and the parent's side of them. No torch here: a worker's backend has it."""
