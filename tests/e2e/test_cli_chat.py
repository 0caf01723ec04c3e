"""`chat` through a pipe and through a real terminal (a pty): commands, Ctrl-C, Ctrl-D, continued lines, history."""

import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
from program import BIN, MODEL, environment, needs_model, run

pytestmark = needs_model
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def chat(cache, text: str, *flags: str):
    return run("chat", MODEL, "--temperature", "0", "--max-tokens", "24", *flags, cache=cache, stdin=text)


def test_a_pipe_gets_answers_and_nothing_else(cache):
    result = chat(cache, "What is the capital of France?\n")
    assert result.status == 0
    assert "Paris" in result.out
    assert ">>>" not in result.out


def test_the_conversation_is_remembered_and_cleared(cache):
    def prompt_tokens(text: str) -> list[int]:
        return [int(count) for count in re.findall(r"(\d+) prompt tokens", chat(cache, text, "--stats").err)]

    remembered = prompt_tokens("Hello there.\nHello there.\n")
    cleared = prompt_tokens("Hello there.\n/clear\nHello there.\n")
    assert remembered[1] > remembered[0] + 10
    assert cleared[0] == cleared[1] == remembered[0]


def test_the_system_message_can_be_set_and_removed(cache):
    result = chat(cache, "Hi\n/clear\n/system One two three four five six seven eight nine ten.\nHi\n", "--stats")
    first, second = (int(count) for count in re.findall(r"(\d+) prompt tokens", result.err))
    assert first != second


def test_a_backslash_continues_the_line(cache):
    joined = chat(cache, "What is the\\\ncapital of France?\n", "--stats")
    assert joined.err.count("prompt tokens") == 1


def test_commands(cache):
    result = chat(cache, "/help\n/dance\n   \n/exit\nWhat is the capital of France?\n")
    assert result.status == 0
    assert "/system TEXT" in result.out
    assert "/dance" in result.err
    assert "Paris" not in result.out


def test_a_conversation_that_outgrows_the_context_says_so_and_goes_on(cache):
    text = "word " * 300 + "\nWhat is the capital of France?\n"
    result = chat(cache, text, "--context", "256")
    assert result.status == 0
    assert "error: " in result.err
    assert "/clear" in result.err
    assert "Paris" in result.out


def test_bytes_that_are_no_utf8_are_refused_and_the_chat_goes_on(cache):
    command = [BIN, "chat", MODEL, "--temperature", "0", "--max-tokens", "24"]
    result = subprocess.run(
        command,
        env=environment(cache),
        input=b"caf\xe9\nWhat is the capital of France?\n",
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0
    assert b"messages[0].content is not UTF-8: byte 0xe9 at offset 3" in result.stderr
    assert b"Paris" in result.stdout


class Terminal:
    """chat on a pty: what it prints, and keys to press."""

    def __init__(self, cache, *flags: str):
        command = [BIN, "chat", MODEL, "--temperature", "0", *flags]
        master, slave = pty.openpty()
        env = {**environment(cache), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, preexec_fn=self.own_terminal
        )
        os.close(slave)
        self.master = master
        self.text = ""

    @staticmethod
    def own_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C on the pty becomes SIGINT

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def expect(self, pattern: str, timeout: float = 120) -> str:
        """Everything up to and with the match, which is then consumed."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.text)
            if found:
                seen, self.text = self.text[: found.end()], self.text[found.end() :]
                return seen
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self.master], [], [], remaining)[0]:
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
            try:
                data = os.read(self.master, 65536)
            except OSError as ended:
                raise AssertionError(f"ended before {pattern!r}: {self.text!r}") from ended
            self.text += data.decode(errors="replace")

    def leave(self) -> int:
        self.press(CTRL_D)
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def start(*flags: str) -> Terminal:
        opened.append(Terminal(tmp_path, *flags))
        opened[-1].expect(">>> ")
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_terminal_conversation(terminal):
    chatting = terminal("--max-tokens", "24")
    chatting.press("What is the capital of France?\r")
    assert "Paris" in chatting.expect(r"Paris[^>]*>>> ")
    assert chatting.leave() == 0


def test_ctrl_c_stops_the_answer_only(terminal):
    chatting = terminal()
    chatting.press("Write a very long story about a dragon.\r")
    chatting.expect(r"dragon\.\s+\S+ \S+ ")  # it is answering
    chatting.press(CTRL_C)
    chatting.expect(r"\[stopped\]\s+>>> ")
    chatting.press("/help\r")
    chatting.expect(r"/system TEXT")
    chatting.expect(">>> ")
    assert chatting.leave() == 0


def test_ctrl_c_while_typing_gives_up_the_line(terminal):
    chatting = terminal("--max-tokens", "24")
    chatting.press("this is never sent")
    chatting.expect("never sent")
    chatting.press(CTRL_C)
    chatting.expect(r"\^C\s+>>> ")
    chatting.press("/exit\r")
    assert chatting.process.wait(60) == 0


def test_a_continued_line_has_its_own_prompt(terminal):
    chatting = terminal("--max-tokens", "4")
    chatting.press("What is the\\\r")
    chatting.expect(r"\.\.\. ")
    chatting.press("capital of France?\r")
    chatting.expect(r">>> ")
    assert chatting.leave() == 0


def test_the_history_is_kept_and_walked(terminal, tmp_path):
    chatting = terminal("--max-tokens", "4")
    chatting.press("/dance zürich\r")
    chatting.expect("no command '/dance'")
    chatting.expect(">>> ")
    assert chatting.leave() == 0
    assert (tmp_path / "chat_history").exists()

    again = terminal("--max-tokens", "4")
    again.press("\x1b[A\r")  # arrow up
    again.expect("no command '/dance'")
    again.expect(">>> ")
    assert again.leave() == 0
