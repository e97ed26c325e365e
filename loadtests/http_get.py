"""GET / over one kept-alive connection per user, as fast as the answers come. This is the load of `make compare`."""

from testbed.loadgen.user import RawHttpUser


class Get(RawHttpUser):
    """Everything is inherited: the path is /, the response must be complete and its status below 400."""
