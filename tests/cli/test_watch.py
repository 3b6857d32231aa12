"""``sdd watch`` over HTTP, on a real port: who is let in, who is not, and folders that are being written."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdd import cli
from sdd.claims.runs import load_run
from sdd.live import folders, pages, server


def text_report(folder):
    """As strict as a report is: every line of every log is read."""
    found = [load_run(run) for run in folders.runs(folder)]
    for run in found:
        run.train_metrics()
    return f"<!doctype html><body><script>1</script>{[len(run.evaluations) for run in found]}</body>"


def write(folder, steps, name="config.json"):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists():  # a run writes it whole
        (folder / name).write_text(json.dumps({"train": {"num_steps": 9}}))
    for log, record in (("metrics", {"loss": 1.0}), ("evaluations", {"split": "id", "metrics": {}})):
        lines = [json.dumps({"step": step} | record) for step in range(steps)]
        (folder / f"{log}.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def serve(monkeypatch):
    """``(folder, report) -> Live`` that is served until the end of the test."""
    monkeypatch.setattr(pages, "PAUSE", 0.0)
    monkeypatch.setattr(pages, "SHARE", 0)
    started = []

    def start(folder, report=text_report):
        live = server.bind(pages.Pages(folder, report))
        threading.Thread(target=live.server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        started.append(live.server)
        return live

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.fixture
def live(serve, tmp_path):
    write(tmp_path / "run", 2)
    return serve(tmp_path / "run")


def ask(live, path=None, method="GET", host=None, **headers):
    """(status, headers, body) of one request; underscores in names of headers are dashes."""
    port = live.server.server_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path or live.url.partition(str(port))[2], skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


def path_of(live):
    return live.url.partition(str(live.server.server_port))[2]


def version(live):
    return json.loads(ask(live, f"{path_of(live)}version")[2])


def wait_for(live, wanted, seconds=30):
    """The page's text, once it holds what is wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        body = ask(live)[2].decode()
        if wanted in body:
            return body
        time.sleep(0.05)
    raise AssertionError(f"no {wanted!r} in {body}; {version(live)}")


def test_who_knows_the_token_gets_the_page(live):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", live.url)
    wait_for(live, "[2]")
    assert ask(live, host=f"localhost:{live.server.server_port}")[0] == 200
    assert ask(live, Origin=f"http://127.0.0.1:{live.server.server_port}")[0] == 200
    status, headers, body = ask(live, method="HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 100
    said = version(live)
    assert said["version"] and said["status"].startswith("step 1 of 9, written ")


def test_only_the_loopback_is_bound(live):
    assert live.server.server_address[0] == "127.0.0.1"
    other = server.bind(pages.Pages(None, text_report))
    other.server.server_close()
    assert path_of(other) != path_of(live)


def test_wrong_tokens_and_other_paths(live):
    path = path_of(live)
    token = path.strip("/")
    assert ask(live, "/")[0] == 403
    assert ask(live, "/version")[0] == 403
    assert ask(live, f"/{token[:-1]}/")[0] == 403
    assert ask(live, f"/{token.swapcase()}/")[0] == 403
    assert ask(live, f"/x/{token}/")[0] == 403
    assert ask(live, f"/?token={token}")[0] == 403
    for wrong in ("config.json", "page", "version/", "version?x", "?x", "#", "index.html"):
        assert ask(live, f"{path}{wrong}")[0] == 404, wrong
    assert ask(live, f"/{token}")[0] == 404


@pytest.mark.parametrize(
    "wrong",
    [
        "../config.json",
        "..%2fconfig.json",
        "%2e%2e/config.json",
        "%2e%2e%2fconfig.json",
        "%252e%252e%252fconfig.json",
        "..%5cconfig.json",
        "..\\config.json",
        "....//config.json",
        "%c0%ae%c0%ae/config.json",
        "//etc/passwd",
        "version/../config.json",
        "version%00",
        "./",
        "%2e/version",
    ],
)
def test_paths_lead_to_no_file(live, wrong):
    assert b"num_steps" not in ask(live, f"{path_of(live)}{wrong}")[2]
    assert ask(live, f"{path_of(live)}{wrong}")[0] == 404
    assert ask(live, f"/{wrong}")[0] == 403


def test_other_hosts_are_refused(live):
    port = live.server.server_port
    for host in (
        "",
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        "localhost",
    ):
        assert ask(live, host=host)[0] == 403, host
    assert ask(live, host=f"127.0.0.1:{port}.evil.example")[0] == 403
    assert ask(live, Host="evil.example")[0] == 403  # a second one beside the right one
    assert ask(live, f"http://127.0.0.1:{port}{path_of(live)}")[0] == 403  # as a proxy is asked


def test_other_origins_are_refused(live):
    for origin in (
        "null",
        "http://evil.example",
        f"https://127.0.0.1:{live.server.server_port}",
        "http://127.0.0.1",
    ):
        assert ask(live, Origin=origin)[0] == 403, origin
    assert ask(live, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script")[0] == 403
    assert ask(live, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe")[0] == 403
    assert (
        ask(live, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")[0] == 200
    )
    assert ask(live, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors", Sec_Fetch_Dest="empty")[0] == 200


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"]
)
def test_it_can_only_be_read(live, method):
    status, headers, _ = ask(live, method=method)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_every_answer_has_the_headers(live):
    answers = [ask(live), ask(live, f"{path_of(live)}version"), ask(live, "/"), ask(live, method="POST")]
    for _, headers, body in answers:
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers and "Python" not in headers["Server"]
        assert path_of(live).strip("/").encode() not in body


def test_what_is_no_http_ends_in_an_answer_or_a_closed_connection(live):
    for sent in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        "GET /é/ HTTP/1.1\r\nHost: é\r\n\r\n".encode(),
        b"GET /" + b"a" * 70000,
    ):
        with socket.create_connection(("127.0.0.1", live.server.server_port), timeout=5) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while part := connection.recv(4096):
                said += part
        assert b"200" not in said.partition(b"\r\n")[0]
    assert ask(live)[0] == 200


def test_only_scripts_of_the_page_may_run():
    report = (
        "<!doctype html><html><head>"
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        '<script type="application/json">{"a": 1}</script><script>alert(1)\r\n</script></head>'
        "<body>x</body></html>"
    )
    page = pages.live_page(report, "v1")
    text = page.body.decode()
    assert "Content-Security-Policy" not in text and text.endswith("</script></body></html>")
    assert page.policy.count("'sha256-") == 3 and "unsafe-inline" not in page.policy.partition("style-src")[0]
    # echo -n 'alert(1)\n' | openssl dgst -sha256 -binary | base64
    openssl = "printf 'alert(1)\\n' | openssl dgst -sha256 -binary | openssl base64"
    digest = subprocess.run(openssl, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    assert f"'sha256-{digest}'" in page.policy
    assert 'data-version="v1"' in text


def test_a_folder_that_is_not_there_yet(serve, tmp_path):
    folder = tmp_path / "runs" / "<later>"
    live = serve(folder)
    assert "&lt;later&gt;</h1>" in ask(live)[2].decode()
    assert version(live) == {"version": "", "status": f"waiting for a run in {folder}"}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"train": {"num_steps": 9}}))
    (folder / "metrics.jsonl").write_text('{"step": 3}\n{"st')
    assert version(live)["status"].startswith("step 3 of 9")
    assert version(live)["version"] == ""  # no evaluation yet
    write(folder, 4)
    wait_for(live, "[4]")


def test_torn_lines_are_left_out_and_nothing_is_written(serve, tmp_path):
    write(tmp_path / "study" / "seed_0" / "grpo", 3)
    write(tmp_path / "study" / "seed_0" / "sdsd", 1)
    for log in ("metrics", "evaluations"):
        with (tmp_path / "study" / "seed_0" / "grpo" / f"{log}.jsonl").open("ab") as file:
            file.write('{"step": 9, "split": "é'.encode()[:-1])
    (tmp_path / "study" / "seed_0" / "begun").mkdir()
    (tmp_path / "study" / "seed_0" / "begun" / "config.json").write_text("{}")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    live = serve(tmp_path / "study")
    wait_for(live, "[3, 1]")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert version(live)["status"].endswith("; 3 runs have begun")


def test_a_report_that_fails_keeps_the_last_page(serve, tmp_path):
    write(tmp_path, 1)
    trouble = []

    def report(folder):
        if trouble:
            raise ValueError("grades are odd\nand more")
        return text_report(folder)

    live = serve(tmp_path, report)
    wait_for(live, "[1]")
    kept = version(live)["version"]
    trouble.append(True)
    write(tmp_path, 2)
    end = time.monotonic() + 20
    while version(live)["status"] != "no newer report: grades are odd and more" and time.monotonic() < end:
        time.sleep(0.05)
    assert version(live) == {"version": kept, "status": "no newer report: grades are odd and more"}
    assert "[1]" in ask(live)[2].decode()
    trouble.clear()
    wait_for(live, "[2]")


def test_many_readers_one_report(serve, tmp_path):
    write(tmp_path, 1)
    making, most, made = [], [], []

    def report(folder):
        making.append(1)
        most.append(len(making))
        time.sleep(0.2)
        making.pop()
        made.append(1)
        return text_report(folder)

    live = serve(tmp_path, report)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(live)[0], range(64)))
    assert answers == [200] * 64
    wait_for(live, "[1]")
    assert max(most) == 1 and len(made) == 1


def test_reports_take_a_small_share_of_the_time(tmp_path):
    write(tmp_path, 1)
    now, made = [1000.0], []

    def report(folder):
        now[0] += 7.0  # seconds that it takes
        made.append(now[0])
        return text_report(folder)

    shown = pages.Pages(tmp_path, report, lambda: now[0])
    for steps in range(2, 100):
        write(tmp_path, steps)
        shown.current()
        while shown._busy:
            time.sleep(0.001)
        now[0] += 3.0
    assert 2 <= len(made) <= (now[0] - 1000) / (7 * pages.SHARE) + 1


def test_a_run_that_is_written_meanwhile(serve, tmp_path):
    """A writer that appends byte by byte, now and then cut back as a resumed run does."""
    write(tmp_path, 1)
    stop = threading.Event()

    def writer():
        step = 1
        while not stop.is_set():
            for log, record in (("metrics", {"loss": 1.0}), ("evaluations", {"split": "id", "metrics": {}})):
                with (tmp_path / f"{log}.jsonl").open("ab", buffering=0) as file:
                    for byte in (json.dumps({"step": step} | record) + "\n").encode():
                        file.write(bytes([byte]))
            step += 1
            if step % 10 == 0:
                write(tmp_path, 1)

    thread = threading.Thread(target=writer)
    live = serve(tmp_path)
    wait_for(live, "[1]")
    thread.start()
    try:
        versions = set()
        for _ in range(60):
            assert ask(live)[0] == 200
            said = version(live)
            assert "no newer report" not in said["status"], said
            versions.add(said["version"])
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    assert len(versions) > 3


def test_the_command_serves_a_real_report_and_ends_with_ctrl_c(tmp_path):
    from tests.report.study_maker import row, write_run

    write_run(tmp_path / "run", {2: {"id": [row("a", "id", [20, 12], 0.5)]}})
    command = [sys.executable, "-m", "sdd", "watch", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        at = server.Live(type("Server", (), {"server_port": int(url.split(":")[2].split("/")[0])}), url)
        assert "run: what it gained" in wait_for(at, "Rollouts", seconds=120)
        assert not (tmp_path / "run" / "report.html").exists()
    finally:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "ended\n")


def test_usage(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for args, said in (
            ([str(tmp_path / "file")], "is no folder"),
            (["gs://bucket/run"], "a folder of this machine"),
            ([str(tmp_path), "--port=80"], "valid: 1024 to 65535"),
            ([str(tmp_path), f"--port={taken.getsockname()[1]}"], "another port"),
            ([], "DIR"),
        ):
            assert cli.main(["watch", *args]) == 2
            error = capsys.readouterr().err
            assert said in error and error.count("\n") == 1 and error.endswith("(see sdd watch --help)\n")
