"""What `joyedit doctor` looks at: this machine, what is installed, a checkpoint, and what a run would do with them."""
