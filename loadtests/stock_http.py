"""A stock locustfile, as anybody would write it: it runs unmodified, here and under plain `locust`."""

from locust import FastHttpUser, task


class Visitor(FastHttpUser):
    """Asks for the front page, and now and then for a larger one."""

    @task(9)
    def front_page(self) -> None:
        """A small answer."""
        self.client.get("/")

    @task(1)
    def ten_kilobytes(self) -> None:
        """A larger one; testbed/web answers it with 10,240 bytes."""
        self.client.get("/bytes/10240")
