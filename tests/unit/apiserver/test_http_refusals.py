"""What is refused, and how: over a real uvicorn on a Unix socket."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.apiserver.auth import BearerToken
from testbed.errors import BadInput
from tests.unit.apiserver.parts import Wire, config_map, deployment, namespace, pod, served, service, status

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
DEEP = b"[" * 500 + b"]" * 500


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Wire]:
    async with served(tmp_path, window=16) as wire:
        yield wire


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (("GET", "/api/v1/nothing", None, ""), 404, "NotFound"),
        (("GET", "/apis/apps/v2/deployments", None, ""), 404, "NotFound"),
        (("GET", "/nothing", None, ""), 404, "NotFound"),
        (("GET", "/api", None, ""), 200, ""),
        (("GET", "/api/v1/pods/web", None, ""), 404, "NotFound"),
        (("GET", f"{PODS}/web/nothing", None, ""), 404, "NotFound"),
        (("GET", f"{MAPS}/a/status", None, ""), 404, "NotFound"),
        (("GET", "/api/v1/namespaces/default/nodes", None, ""), 404, "NotFound"),
        (("POST", "/api/v1/configmaps", config_map("a"), "application/json"), 405, "MethodNotAllowed"),
        (("PUT", MAPS, config_map("a"), "application/json"), 405, "MethodNotAllowed"),
        (("POST", f"{MAPS}/a", config_map("a"), "application/json"), 405, "MethodNotAllowed"),
        (("OPTIONS", MAPS, None, ""), 405, "MethodNotAllowed"),
        (("DELETE", "/api/v1/configmaps", None, ""), 405, "MethodNotAllowed"),
        (("POST", PODS, pod(affinity={"podAntiAffinity": "x"}), "application/json"), 400, "BadRequest"),
        (("DELETE", "/api/v1/namespaces", None, ""), 405, "MethodNotAllowed"),
        (("GET", f"{MAPS}?limit={'9' * 5000}", None, ""), 400, "BadRequest"),
        (("POST", "/version", {}, "application/json"), 405, "MethodNotAllowed"),
        (("POST", MAPS, b"{", "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b"", "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b"[]", "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b"null", "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b'{"a":"\xff"}', "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b'{"data":' + b'{"a":' * 500 + b"1" + b"}" * 501, "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b'{"metadata":{"name":"d"},"x":' + DEEP + b"}", "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b"[" * 100_000, "application/json"), 400, "BadRequest"),
        (("POST", MAPS, config_map("a", "other"), "application/json"), 400, "BadRequest"),
        (("POST", MAPS, pod("a"), "application/json"), 400, "BadRequest"),
        (("POST", MAPS, b"kind: ConfigMap", "application/yaml"), 415, "UnsupportedMediaType"),
        (("POST", MAPS, b"k8s\0", "application/vnd.kubernetes.protobuf"), 415, "UnsupportedMediaType"),
        (("PATCH", f"{MAPS}/here", {}, JSON_PATCH), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", [{"op": "take", "path": "/x"}], JSON_PATCH), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", [{"op": "remove", "path": "/x"}], JSON_PATCH), 422, "Invalid"),
        (("PATCH", f"{MAPS}/here", [{"op": "remove", "path": ""}], JSON_PATCH), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", {"metadata": {"labels": {"a": "b"}}}, STRATEGIC), 200, ""),
        (("PATCH", f"{MAPS}/here", {"metadata": {"finalizers": []}}, STRATEGIC), 415, "UnsupportedMediaType"),
        (("PATCH", f"{MAPS}/here", {"data": {"$patch": "replace"}}, STRATEGIC), 415, "UnsupportedMediaType"),
        (("PATCH", f"{MAPS}/here", {}, "application/apply-patch+yaml"), 415, "UnsupportedMediaType"),
        (("PATCH", f"{MAPS}/here", b'{"data":' * 900 + b"1" + b"}" * 900, MERGE), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", {"metadata": None}, MERGE), 200, ""),
        (("PATCH", f"{MAPS}/here", {"metadata": 5}, MERGE), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", [1], MERGE), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", {"kind": "Pod"}, MERGE), 400, "BadRequest"),
        (("PATCH", f"{MAPS}/here", {"metadata": {"name": "other"}}, MERGE), 400, "BadRequest"),
        (("PUT", f"{MAPS}/here", config_map("other"), "application/json"), 400, "BadRequest"),
        (("DELETE", f"{MAPS}/here", [1], "application/json"), 400, "BadRequest"),
        (("DELETE", f"{MAPS}/here", {"gracePeriodSeconds": "soon"}, "application/json"), 400, "BadRequest"),
        (("DELETE", f"{MAPS}/here", {"propagationPolicy": "Sideways"}, "application/json"), 400, "BadRequest"),
        (("DELETE", f"{MAPS}/here", {"dryRun": ["All"]}, "application/json"), 400, "BadRequest"),
        (("POST", f"{MAPS}?dryRun=All", config_map("a"), "application/json"), 400, "BadRequest"),
        (("GET", f"{MAPS}?limit=many", None, ""), 400, "BadRequest"),
        (("GET", f"{MAPS}?watch=perhaps", None, ""), 400, "BadRequest"),
        (("GET", f"{MAPS}?resourceVersion=-1", None, ""), 400, "BadRequest"),
        (("GET", f"{MAPS}?resourceVersionMatch=Exact", None, ""), 422, "Invalid"),
        (("GET", f"{MAPS}?resourceVersion=1&resourceVersionMatch=Nearly", None, ""), 422, "Invalid"),
        (("GET", f"{PODS}/web/exec", None, ""), 400, "BadRequest"),
    ],
)  # fmt: skip
async def test_a_mistaken_request_gets_the_right_refusal(
    api: Wire, request_: tuple[str, str, Any, str], code: int, reason: str
) -> None:
    method, path, body, media_type = request_
    await api.call("POST", MAPS, config_map("here"))
    url, _, query = path.partition("?")
    parameters = dict(part.split("=") for part in query.split("&") if part)
    response = await api.call(method, url, body, media_type=media_type, **parameters)
    assert response.status_code == code, response.text
    if reason:
        assert status(response)["reason"] == reason


async def test_a_client_that_reads_no_json_is_refused(api: Wire) -> None:
    response = await api.http.get(MAPS, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert status(response)["reason"] == "NotAcceptable"
    for accept in ("application/vnd.kubernetes.protobuf,application/json", "*/*", "application/json;as=Table, */*"):
        assert (await api.http.get(MAPS, headers={"Accept": accept})).status_code == 200


async def test_a_body_above_the_limit_is_too_large(api: Wire) -> None:
    announced = await api.call("POST", MAPS, b"x" * (3 * 1024 * 1024 + 1))
    assert status(announced)["reason"] == "RequestEntityTooLarge"

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    response = await api.http.post(MAPS, content=unannounced(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert (await api.call("GET", MAPS)).status_code == 200


async def test_every_mistake_of_an_object_is_a_cause(api: Wire) -> None:
    found = status(await api.call("POST", "/api/v1/namespaces/default/services", service(ports=[{}, {}], type="x")))
    assert (found["code"], found["reason"]) == (422, "Invalid")
    assert {cause["field"] for cause in found["details"]["causes"]} >= {
        "spec.type", "spec.ports[0].name", "spec.ports[0].port", "spec.ports[1].port"
    }  # fmt: skip
    assert all(cause["message"] and cause["reason"] for cause in found["details"]["causes"])


async def test_the_token_is_required(api: Wire) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ):
        bare = httpx.AsyncHTTPTransport(uds=str(api.socket))
        async with httpx.AsyncClient(transport=bare, base_url="http://api", headers=headers) as http:
            response = await http.get(MAPS)
            assert status(response) | {"metadata": {}} == {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
            }  # fmt: skip
            assert (await http.get("/version")).status_code == 200
            for path in ("/healthz", "/livez", "/readyz"):
                health = await http.get(path)
                assert (health.status_code, health.text) == (200, "ok")
                assert health.headers["content-type"].startswith("text/plain")
                assert f"{path[1:]} check passed" in (await http.get(path, params={"verbose": ""})).text


def test_there_is_no_empty_token() -> None:
    with pytest.raises(BadInput, match="token is empty"):
        BearerToken("")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SAMPLES = [config_map("a", x="1"), pod(), service(), deployment(), namespace("n")]


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
async def test_no_document_makes_the_server_fail(api: Wire, data: st.DataObject) -> None:
    """Any value in the place of any part of an object is refused or taken, never a 5xx."""
    obj = orjson.loads(orjson.dumps(data.draw(st.sampled_from(SAMPLES))))
    spoil(obj, data)
    try:
        body = orjson.dumps(obj)
    except TypeError:  # an integer beyond 64 bits
        return
    for root in ("/api/v1/namespaces/default", "/apis/apps/v1/namespaces/default"):
        for plural in ("configmaps", "pods", "services", "deployments"):
            response = await api.call("POST", f"{root}/{plural}", body)
            assert response.status_code < 500, response.text
    await api.call("POST", PODS, pod())
    patched = await api.call("PATCH", f"{PODS}/web", body, media_type=MERGE)
    assert patched.status_code < 500, patched.text


def spoil(obj: Any, data: st.DataObject) -> None:
    """Put something else in the place of some part."""
    while True:
        keys = list(obj) if isinstance(obj, dict) else list(range(len(obj)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(obj[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            obj[key] = data.draw(JSON)
            return
        obj = obj[key]
