"""The built-in page in a headless Chromium: chat, stop, settings, markdown, the live view, keyboard, narrow screens."""

import json
import os
import re
import shutil
import subprocess

import pytest
from playwright.sync_api import Page, expect, sync_playwright

BIN = os.environ["MLXS_BIN"]
MODEL = os.environ["MLXS_TEST_MODEL"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def start(**environment):
    process = subprocess.Popen(
        [BIN, "serve", MODEL, "--port", "0"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    url = re.search(r"http://\S+", process.stdout.readline()).group(0).rstrip("/")
    return process, url


@pytest.fixture(scope="session")
def server():
    process, url = start()
    yield url
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
    page.goto(server)
    yield page
    page.close()
    assert errors == []


def ask(page: Page, text: str):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def settings(page: Page, **values):
    page.get_by_text("Settings", exact=True).click()
    for label, value in values.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)


def answers(page: Page):
    return page.locator("#messages li.assistant")


def test_an_answer_streams_and_the_conversation_goes_on(page):
    settings(page, Temperature="0", Most_tokens="24")
    ask(page, "What is the capital of France?")
    expect(answers(page).first).to_contain_text("Paris", timeout=30_000)
    expect(answers(page).first.locator(".figures")).to_contain_text("tokens")
    ask(page, "And of Italy?")
    expect(answers(page).nth(1).locator(".figures")).to_be_visible(timeout=30_000)
    assert page.locator("#messages li.user").count() == 2


def test_settings_reach_the_server(page):
    bodies = []
    page.on("request", lambda r: bodies.append(r.post_data_json) if r.url.endswith("/chat/completions") else None)
    settings(page, System_prompt="Answer in one word.", Temperature="0.5", Top_p="0.9", Seed="7", Most_tokens="3")
    ask(page, "Hello")
    expect(answers(page).first.locator(".figures")).to_contain_text("3 tokens", timeout=30_000)
    body = bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "Answer in one word."}
    assert (body["temperature"], body["top_p"], body["seed"], body["max_tokens"]) == (0.5, 0.9, 7, 3)


def test_stop_ends_the_work_on_the_server(page, server):
    settings(page, Temperature="1")
    ask(page, "Write a very long story about a river. Never stop.")
    expect(answers(page).first).not_to_be_empty(timeout=30_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator("#running")).to_have_text("0", timeout=30_000)


def test_escape_stops_too_and_a_new_chat_forgets(page):
    ask(page, "Count to one thousand.")
    expect(answers(page).first).not_to_be_empty(timeout=30_000)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#messages li")).to_have_count(0)


def test_an_error_is_shown_in_the_servers_words(page):
    settings(page, Temperature="9")
    ask(page, "Hello")
    expect(page.locator("#messages li.error")).to_contain_text("temperature")
    page.get_by_label("Temperature").fill("")
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(content_type="text/event-stream", body='data: {"error": {"message": "it broke"}}\n\n'),
    )
    ask(page, "Hello")
    expect(page.locator("#messages li.error").nth(1)).to_have_text("it broke")


def test_the_live_view_follows_the_server(page):
    expect(page.locator("#pages i").first).to_be_attached(timeout=10_000)
    settings(page, Temperature="0", Most_tokens="200")
    ask(page, "Tell me about the sea.")
    expect(page.locator("#running")).to_have_text("1", timeout=30_000)
    expect(page.locator("#rate")).not_to_have_text(re.compile("^[0–]$"), timeout=30_000)
    expect(page.locator("#ttft")).to_contain_text("ms")
    expect(page.locator("#pages")).to_have_attribute("aria-label", re.compile(r"KV pages: \d+ in use"))
    page.keyboard.press("Escape")


def test_running_requests_come_first_and_say_for_how_long(page):
    settings(page, Temperature="1")
    ask(page, "Write a very long story about a mountain. Never stop.")
    row = page.locator("#requests tr.running").first
    expect(row).to_contain_text("running", timeout=30_000)
    expect(row).to_contain_text(re.compile(r"\d\.\d s"))
    page.keyboard.press("Escape")
    expect(page.locator("#requests tr.running")).to_have_count(0, timeout=30_000)
    expect(page.locator("#requests tr").first).to_have_attribute("title", re.compile("POST /v1/chat/completions"))


def test_thoughts_are_shown_apart_from_the_answer(page):
    events = [{"reasoning_content": "First *this*."}, {"content": "Then that."}]
    body = "".join(f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n" for delta in events) + ": keep-alive\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ask(page, "Hello")
    expect(answers(page).first.locator(":scope > p")).to_have_text("Then that.")
    thoughts = answers(page).first.locator("details.thinking")
    expect(thoughts).to_contain_text("First this.")
    assert not thoughts.evaluate("box => box.open")
    thoughts.locator("summary").click()
    assert thoughts.evaluate("box => box.open")


MARKDOWN = """# Title

Some *soft* and **loud** `code` and [a link](https://example.org/x_y).

- one
  - inner
- two

| a | b |
|---|---|
| 1 | 2 |

> said

```python
print("<b>")
```

<img src=x onerror="window.broken = 1"> [bad](javascript:alert(1))"""


def test_markdown_becomes_elements_and_never_markup(page):
    html = page.evaluate(
        """async (text) => {
          const { markdown } = await import('/markdown.js');
          const box = document.createElement('div');
          box.append(markdown(text));
          document.body.append(box);
          return box.innerHTML;
        }""",
        MARKDOWN,
    )
    for part in (
        "<h3>Title</h3>",
        "<em>soft</em>",
        "<strong>loud</strong>",
        "<code>code</code>",
        "<li>one<ul><li>inner</li></ul></li>",
        "<th>a</th>",
        "<td>2</td>",
        "<blockquote><p>said</p></blockquote>",
        'href="https://example.org/x_y"',
        'print("&lt;b&gt;")',
    ):
        assert part in html, part
    assert "<img" not in html and 'href="javascript' not in html
    assert page.evaluate("window.broken") is None


def test_quantiles_of_buckets(page):
    results = page.evaluate(
        """async () => {
          const { quantile } = await import('/live.js');
          const now = new Map([[0.1, 10], [0.2, 20], [Infinity, 20]]);
          return [quantile(now, null, 0.5), quantile(now, null, 0.75), quantile(now, now, 0.5),
                  quantile(new Map([[0.1, 0], [Infinity, 5]]), null, 0.5)];
        }"""
    )
    assert results[0] == pytest.approx(0.1)
    assert results[1] == pytest.approx(0.15)
    assert results[2] is None
    assert results[3] == pytest.approx(0.1)


def test_the_keyboard_reaches_everything(page):
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"model", "new", "text", "send", "SUMMARY"} <= reached


def test_a_narrow_screen_has_no_sideways_scrolling(browser, server):
    page = browser.new_page(viewport={"width": 360, "height": 640})
    page.goto(server)
    expect(page.locator("#pages i").first).to_be_attached(timeout=10_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.get_by_label("Message").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 640
    page.close()


def test_keys_are_asked_for_and_kept_for_the_session(browser):
    process, url = start(MLXS_API_KEY="a-long-enough-key-for-the-page")
    page = browser.new_page()
    try:
        page.goto(url)
        expect(page.locator("#messages li.error")).to_be_visible()
        page.get_by_text("Settings", exact=True).click()
        page.get_by_label("API key").fill("a-long-enough-key-for-the-page")
        page.get_by_label("API key").press("Tab")
        expect(page.locator("#model option")).to_have_count(1)
        page.reload()
        expect(page.locator("#model option")).to_have_count(1)
    finally:
        page.close()
        process.terminate()
        process.wait(60)
