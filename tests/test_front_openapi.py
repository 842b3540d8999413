"""What an endpoint says of itself: that it is valid, that it is all, and that it is true."""

from __future__ import annotations

import copy
import json
import os
import shutil

import jsonschema
import pytest

from nbmlops.front import openapi
from nbmlops.front.app import ROUTES
from nbmlops.records import RouteTable
from serving import ask, route
from test_front import World

validator = pytest.importorskip("openapi_spec_validator")

KINDS = ("logistic", "mixed", "gaps", "regressor", "array")
# For people, for pages, or for the tool alone.
NOT_DESCRIBED = {"/", "/docs", "/docs/page.js", "/docs/page.css", "/control/routes"}


def described(kind, *, token=False, versions=(3,)):
    routes = tuple(
        route(
            kind,
            f"unix:/{version}.sock",
            f"cancer-w{version}",
            version,
            role="champion" if version == versions[0] else "canary",
            share=100.0 / len(versions),
        )
        for version in versions
    )
    table = RouteTable(endpoint="cancer", revision=1, routes=routes)
    return json.loads(openapi.encoded(table, rows_limit=100, token=token))


def operations(document):
    return {
        (path, method): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_description_is_valid(kind, token):
    validator.validate(described(kind, token=token, versions=(4, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_fits_the_schema_that_it_stands_beside(kind):
    document = described(kind)
    seen = 0
    for operation in operations(document).values():
        places = [operation.get("requestBody", {}), *operation["responses"].values()]
        for place in places:
            for content in place.get("content", {}).values():
                examples = [one["value"] for one in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples:
                    whole = {
                        **copy.deepcopy(content["schema"]),
                        "components": document["components"],
                    }
                    jsonschema.Draft202012Validator(whole).validate(example)
                    seen += 1
    assert seen >= 10


def test_the_description_of_an_endpoint_without_a_model_is_valid_and_has_no_model():
    table = RouteTable(endpoint="cancer", revision=1, routes=())
    document = openapi.openapi(table, rows_limit=1)
    validator.validate(document)
    assert set(document["paths"]) == {
        "/v2", "/v2/health/live", "/v2/health/ready",
        "/health/live", "/health/ready", "/metrics", "/openapi.json",
    }  # fmt: skip


def test_every_route_is_described_but_those_for_people_and_for_the_tool():
    live = {
        (path.replace("{model}", "cancer"), method.lower())
        for path, methods in ROUTES.items()
        for method in methods
        if path not in NOT_DESCRIBED
    }
    assert set(operations(described("mixed"))) == live


def test_each_operation_has_a_name_of_its_own_and_says_what_it_answers():
    found = operations(described("mixed"))
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    for operation in found.values():
        assert operation["summary"]
        assert "200" in operation["responses"]
        assert operation["tags"]


def test_versions_are_those_that_are_served():
    document = described("mixed", versions=(7, 5))
    operation = document["paths"]["/v2/models/cancer/versions/{version}/infer"]["post"]
    (parameter,) = operation["parameters"]
    assert parameter["schema"]["enum"] == ["7", "5"]


def test_with_a_token_all_but_health_and_counts_asks_for_it():
    document = described("mixed", token=True)
    assert document["security"] == [{"token": []}]
    free = {path for (path, _), one in operations(document).items() if one.get("security") == []}
    assert free == {
        "/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready",
    }  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A front and a worker of each kind of model, made when it is asked for."""
    made, fronts = World(tmp_path_factory.mktemp("described")), {}

    def get(kind):
        if kind not in fronts:
            fronts[kind] = made.front([route(kind, made.worker(kind).address)])
        return fronts[kind]

    yield get
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaps", "logistic"])
def test_every_operation_works_as_its_examples_stand(served, kind):
    front = served(kind)
    document = json.loads(ask(front.address, "GET", "/openapi.json")[2])
    asked = 0
    for (path, method), operation in operations(document).items():
        for parameter in operation.get("parameters", ()):
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])  # noqa: PLW2901
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        bodies = [one["value"] for one in content.get("examples", {}).values()]
        bodies += [content["example"]] if "example" in content else []
        for body in bodies or [None]:
            text = None if body is None else json.dumps(body)
            status, headers, answer = ask(front.address, method.upper(), path, text)
            assert status == 200, (method, path, answer)
            response = operation["responses"]["200"]
            media_type = headers["Content-Type"].split(";")[0]
            told = response["content"][media_type]
            if media_type == "application/json":
                whole = {**told["schema"], "components": document["components"]}
                jsonschema.Draft202012Validator(whole).validate(json.loads(answer))
            for name in response.get("headers", ()):
                assert name in headers or name == "Inference-Header-Content-Length"
            asked += 1
    assert asked >= 14


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def browser():
    """A Chromium of each test's own, as no event loop may run between tests."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium: `make test-system` installs Debian's")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=flags)
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark"])
def page(browser, request):
    """A page of a browser that prefers a scheme; whatever it complains about fails the test."""
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1200, "height": 900}
    )
    opened = context.new_page()
    complaints, asked = [], []
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else 0)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda one: asked.append(one.url))
    opened.complaints, opened.asked, opened.scheme = complaints, asked, request.param
    yield opened
    context.close()


def picture(page, name):
    """Keep a picture in the folder of ``NBMLOPS_SCREENSHOTS``, if one is named."""
    if folder := os.environ.get("NBMLOPS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def sent(page, wanted):
    page.locator("#try").click()
    page.locator("#status", has_text=f"Status {wanted}").wait_for()
    return json.loads(page.locator("#answer").inner_text())


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("kind", ["gaps", "logistic"])
def test_the_page_sends_a_prediction_and_a_v2_call_with_nothing_from_elsewhere(served, page, kind):
    url = served(kind).address.replace("tcp:", "http://")
    page.goto(f"{url}/docs")
    page.locator("#try:enabled").wait_for()
    assert page.locator("#title").inner_text() == "cancer"
    answer = sent(page, 200)
    assert answer["predictions"][0]["within_bounds"] is True
    picture(page, f"docs-{kind}-{page.scheme}")
    page.locator("#request").fill('{"records": [{"nothing": 1}]}')
    assert sent(page, 422)["error"]["code"] == "invalid-records"
    for label in (
        "POST /v2/models/cancer/infer",
        "POST /v2/models/cancer/versions/{version}/infer",
    ):
        page.locator("#operation").select_option(label=label)
        examples = page.locator("#example option").count()
        assert examples == (2 if kind == "logistic" else 1)
        for number in range(examples):
            if examples > 1:
                page.locator("#example").select_option(index=number)
            assert sent(page, 200)["outputs"][0]["name"] == "prediction"
        assert f"{url}/v2/models/cancer/" in page.locator("#curl").inner_text()
    page.locator("#operation").select_option(label="GET /metrics")
    assert page.locator("#request").is_hidden()
    page.locator("#try").click()
    page.get_by_text("nbmlops_build_info").first.wait_for()
    page.locator("#operation").select_option(label="POST /v2/models/cancer/infer")
    page.locator("#more summary").click()
    picture(page, f"docs-{kind}-{page.scheme}-v2")
    assert {one.split("/")[2] for one in page.asked if not one.startswith("data:")} == {
        url.removeprefix("http://")
    }
    # The browser says itself that a call was refused; nothing else is complained about.
    assert [said for said in page.complaints if "422" not in said] == []
