"""The pages in a real browser, on the sizes of a phone and of a desk."""

import html
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from arclight.decision import Decision
from arclight.pages.dataset_page import dataset_page
from arclight.pages.model_page import model_page
from arclight.pages.study_page import study_page
from tests.arclight.pages.made_up import (
    HOSTILE,
    evaluation_of,
    flights_manifest,
    model_bundle,
)
from tests.arclight.pages.made_up_study import made_up_study, made_up_trials

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=3000",
)  # fmt: skip
SIZES = {"phone": (390, 844), "desk": (1280, 900)}
POLICY = re.compile(r"<meta http-equiv=[^>]*>")

# A window is at least 500 wide, so the page stands in a frame; it cannot be read from outside, so
# a script of ours reads it from within, in a copy without the policy that lets no script run.
FRAME = """<!doctype html><body style="margin: 0">
<iframe src="probed.html" style="border: 0; width: %dpx; height: %dpx"></iframe>
<pre id="probe"></pre>
<script>
addEventListener('message', (e) => { document.getElementById('probe').textContent = e.data; });
</script>
"""
PROBE = """
<script>
const limit = document.documentElement.clientWidth;
const inBox = (e) => e.closest('.scroll, .top');
const wide = [...document.querySelectorAll('main *')].filter(
  (e) => !e.closest('svg') && !inBox(e) && e.getBoundingClientRect().right > limit + 0.5);
const charts = [...document.querySelectorAll('svg')].map((e) => e.getBoundingClientRect());
const columns = [...document.querySelectorAll('details.column')];
location.hash = '#c5';
setTimeout(() => {
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - limit,
    wide: wide.map((e) => e.tagName + '.' + e.className),
    charts: charts.length,
    narrow: charts.filter((r) => r.width > 0 && r.width < 240).length,
    scripts: document.scripts.length,
    requests: performance.getEntriesByType('resource').length,
    shut: columns.filter((e) => !e.open).length,
    followed: columns.length ? columns[5].open : null,
    ink: [...document.querySelectorAll('svg text')].slice(0, 1).map(
      (e) => getComputedStyle(e).fill),
    smallest: Math.min(99, ...[...document.querySelectorAll('svg text')]
      .map((e) => e.getBoundingClientRect().height).filter((h) => h > 0)),
    text: document.body.innerText,
  }), '*');
}, 50);
</script>
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]


def browse(page, folder, *flags):
    """Run Chromium on a file until it has done what the flags say; return its output."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        output, _ = child.communicate(timeout=90)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    assert child.returncode == 0
    return output.decode()


def probe(text, folder, size, *flags):
    """Return what the probe finds on a page in a window of the given size."""
    assert "Content-Security-Policy" in text
    copy, frame = folder / "probed.html", folder / "frame.html"
    copy.write_text(POLICY.sub("", text, count=1).replace("</body>", PROBE + "</body>"))
    frame.write_text(FRAME % SIZES[size])
    dom = browse(frame, folder, "--window-size=1400,1000", "--dump-dom", *flags)
    return json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))


@pytest.fixture(scope="module")
def pages():
    manifest = flights_manifest()
    bundle = model_bundle(manifest)
    decision = Decision(kind="promote", reason="auc 0.81 is at least 0.7.")
    regression = model_bundle(flights_manifest(task="regression", wide=0))
    study = made_up_study(60)
    wide = flights_manifest(wide=80, rows={"train": 900, "valid": 300, "test": 300})
    return {
        "dataset": dataset_page(manifest),
        "wide": dataset_page(wide),
        "model": model_page(bundle, evaluation_of(bundle), manifest, decision),
        "regression": model_page(regression, evaluation_of(regression)),
        "unjudged": model_page(bundle),
        "study": study_page(study, made_up_trials(study), {"num_leaves": 0.6, "boosting": 0.4}),
    }


CHARTS = {"dataset": 34, "wide": 100, "model": 8, "regression": 5, "unjudged": 1, "study": 8}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", CHARTS)
def test_a_page_fits_the_screen(pages, kind, size, tmp_path):
    found = probe(pages[kind], tmp_path, size)
    assert found["width"] == SIZES[size][0]
    assert found["overflow"] <= 0
    assert found["wide"] == []
    assert found["charts"] == CHARTS[kind]
    assert found["narrow"] == 0
    assert found["smallest"] >= 9
    assert found["scripts"] == 1  # the probe's own
    assert found["requests"] == 0


@pytest.mark.parametrize("kind", ["dataset", "model", "study"])
def test_hostile_names_are_seen_as_text(pages, kind, tmp_path):
    found = probe(pages[kind], tmp_path, "desk")
    assert "<script>alert('x')</script> $\\frac{1}$ \\x1b[31m\\u202e" in found["text"]
    assert HOSTILE not in found["text"]


def test_a_link_opens_the_column_it_leads_to(pages, tmp_path):
    found = probe(pages["wide"], tmp_path, "phone")
    assert found["followed"] is True
    assert found["shut"] > 80


def test_charts_follow_the_dark(pages, tmp_path):
    light = probe(pages["dataset"], tmp_path, "phone", "--blink-settings=preferredColorScheme=1")
    dark = probe(pages["dataset"], tmp_path, "phone", "--blink-settings=preferredColorScheme=0")
    assert light["ink"] != dark["ink"]


def test_no_script_runs_on_the_page_itself(pages, tmp_path):
    page = tmp_path / "page.html"
    script = "<script>document.title = 'ran'</script>"
    page.write_text(pages["dataset"].replace("</body>", script + "</body>"))
    assert "<title>ran" not in browse(page, tmp_path, "--dump-dom")


@pytest.mark.parametrize("size", SIZES)
def test_a_screenshot_is_drawn(pages, size, tmp_path):
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(pages["dataset"])
    window = "--window-size={},{}".format(*SIZES[size])
    browse(page, tmp_path, window, f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000
