"""Service rules: what to serve (pure), how to say it to the kernel (pure), and the loop that loads it."""
