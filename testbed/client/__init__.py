"""How every component reaches the API: one protocol, over HTTP and over a fake; the informer."""
