"""A worker process: `python -m joyedit.runtime.workers`. Its parent starts it; by hand it waits for messages."""

from joyedit.runtime.workers.worker import main

if __name__ == "__main__":
    main()
