"""The API server: store, admission, authentication, and the wire format over HTTP."""
