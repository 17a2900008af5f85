"""Where the weights lie: on the device, in the host's memory, or in their files; the plan, and the streaming."""
