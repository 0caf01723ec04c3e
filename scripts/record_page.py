#!/usr/bin/env python3
"""Draws docs/img/page.png: the built-in page of a running server (.venv-protocol/bin/python scripts/record_page.py URL)."""

import shutil
import sys

from playwright.sync_api import expect, sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1100, "height": 640})
    page.goto(sys.argv[1])
    for question in ("What is the capital of France?", "Name three of its rivers as a list."):
        page.get_by_label("Message").fill(question)
        page.get_by_label("Message").press("Enter")
        expect(page.locator(".figures").nth(page.locator("#messages li.user").count() - 1)).to_be_visible(timeout=60_000)
    page.wait_for_timeout(2500)
    page.screenshot(path="docs/img/page.png")
    browser.close()
