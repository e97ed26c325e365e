"""What happens to an object before it is stored: its shape, defaults, allocation, validation. One module per noun."""
