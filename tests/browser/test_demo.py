"""The demo in a real browser: two people talk across workers, one loses the worker and comes back."""

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from redis import Redis

from tests.support.parts import require
from tests.support.stack import Stack

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONNECTED = '#state[data-state="connected"]'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Of this module alone: parts of it are killed, and come back."""
    with Stack(tmp_path_factory.mktemp("demo")) as stack:
        yield stack


def visit(browser: Browser, stack: Stack) -> Page:
    """A visitor with a browser of their own."""
    page = browser.new_context(viewport={"width": 1200, "height": 720}, color_scheme="light").new_page()
    page.on("pageerror", lambda error: pytest.fail(f"an error in the page: {error}"))
    page.goto(f"{stack.url}/")
    expect(page.locator(CONNECTED)).to_be_visible(timeout=10_000)
    # In the lobby: what others say from now on is heard.
    expect(page.locator("#users")).to_contain_text(page.locator("#user").inner_text(), timeout=10_000)
    return page


def enter(room: str, *pages: Page) -> None:
    """All of them, until each sees that all are in."""
    names = sorted(page.locator("#user").inner_text() for page in pages)
    for page in pages:
        page.fill("#room", room)
        page.press("#room", "Enter")
    for page in pages:
        expect(page.locator("#users")).to_have_text(", ".join(names), timeout=10_000)


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def sees(page: Page, text: str) -> None:
    expect(page.locator("#messages li:not(.pending)", has_text=text)).to_have_count(1, timeout=10_000)


def test_two_people_talk_and_one_survives_its_worker(browser: Browser, stack: Stack) -> None:
    ada, bob = visit(browser, stack), visit(browser, stack)
    say(ada, "Good morning! Which worker are you on?")
    for page in (ada, bob):
        sees(page, "Which worker")
    say(bob, "Another one than you, maybe. Same room, though.")
    sees(ada, "Same room")
    assert ada.locator("#position").inner_text().startswith("2 in ")

    assert ada.locator("#pod").inner_text() in ("pod-1", "pod-2")
    served_by = ada.locator("#worker").inner_text()
    ada.click("#kill")
    expect(ada.locator("#connects")).to_have_text("2", timeout=15_000)
    expect(ada.locator(CONNECTED)).to_be_visible(timeout=10_000)
    assert ada.locator("#worker").inner_text() != served_by
    say(ada, "My worker was killed. I am on another one.")
    sees(ada, "My worker was killed")
    sees(bob, "My worker was killed")
    say(bob, "I did not notice.")
    sees(ada, "I did not notice")
    if picture := os.environ.get("CARILLON_SCREENSHOT"):
        ada.screenshot(path=picture)


def test_an_own_message_is_pending_until_it_is_confirmed(browser: Browser, stack: Stack) -> None:
    page = visit(browser, stack)
    stack.stop_valkey()
    say(page, "Does anybody hear me?")
    expect(page.locator("#messages li.pending", has_text="Does anybody hear me?")).to_be_visible()
    stack.start_valkey()
    sees(page, "Does anybody hear me?")
    stack.wait_ready()


def test_rooms_are_separate_and_count_what_is_unread(browser: Browser, stack: Stack) -> None:
    ada, bob = visit(browser, stack), visit(browser, stack)
    enter("garden", ada, bob)
    say(bob, "In the garden")
    sees(ada, "In the garden")
    ada.click("#rooms button:has-text('lobby')")
    expect(ada.locator("#messages li")).to_have_count(0)
    say(bob, "Still in the garden")
    expect(ada.locator("#rooms .unread")).to_have_text("1")


def test_what_a_person_types_is_text(browser: Browser, stack: Stack) -> None:
    ada, bob = visit(browser, stack), visit(browser, stack)
    say(ada, "<img src=x onerror=alert(1)>")
    sees(bob, "<img src=x onerror=alert(1)>")
    assert bob.locator("#messages img").count() == 0


def test_who_is_in_a_room_is_shown_and_asked_again_after_a_loss(browser: Browser, stack: Stack) -> None:
    ada, bob = visit(browser, stack), visit(browser, stack)
    names = [page.locator("#user").inner_text() for page in (ada, bob)]
    enter("hall", ada, bob)
    with closing(Redis.from_url(stack.redis_url)) as redis:
        # A leave that nobody hears is as good as a join that never was.
        redis.publish("carillon:{demo:hall}", ':presence:1{"joined":["Ghost"]}')
        expect(ada.locator("#users")).to_contain_text("Ghost", timeout=10_000)
        redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    for page in (ada, bob):
        expect(page.locator("#users")).to_have_text(", ".join(sorted(names)), timeout=10_000)
