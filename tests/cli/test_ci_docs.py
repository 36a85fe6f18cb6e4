"""The jobs of docs/ci.md, run as they stand there: on the demo model, with a pattern that holds and with one that does
not."""
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml

import yaml  # build/venv has it

from harness import DSACAL, ROOT, environment, equal, expect, good, main, read, scratch, write

DEMO = os.path.join(ROOT, "calib_data", "demo")
LAYERS = 16
_shared = []


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", read(ROOT, "docs", "ci.md").decode(), re.M | re.S)


def jobs():
    """(system, its command lines, where the job says that JUnit is)."""
    found = []
    for text in blocks("yaml"):
        job = yaml.safe_load(text)
        if "jobs" in job:
            steps = job["jobs"]["verify"]["steps"]
            artifact = next(s for s in steps if "upload-artifact" in s.get("uses", ""))
            expect(artifact["if"] == "always()", "JUnit of a failed job is not kept")
            found.append(("GitHub", [s["run"] for s in steps if "run" in s], artifact["with"]["path"]))
        else:
            artifacts = job["verify"]["artifacts"]
            expect(artifacts["when"] == "always", "JUnit of a failed job is not kept")
            found.append(("GitLab", job["verify"]["script"], artifacts["reports"]["junit"]))
    return found


def checkout():
    """What the job finds: pattern.yaml, made with --accept from two lines, and the documents."""
    if not _shared:
        directory = scratch()
        os.mkdir(os.path.join(directory, "corpora"))
        shutil.copy(os.path.join(DEMO, "legal.jsonl.zst"), os.path.join(directory, "corpora"))
        write('pattern: "' + "F" * (LAYERS - 3) + 'SFF"\nbudget: {kl: 0.05}\nmax_tokens: 1200\n', directory,
              "pattern.yaml")
        good("verify", "pattern.yaml", "--model", DEMO, "--corpus", "legal=corpora/legal.jsonl.zst", "--device", "cpu",
             "--accept", cwd=directory, timeout=500)
        _shared.append(directory)
    directory = os.path.join(scratch(), "checkout")
    shutil.copytree(_shared[0], directory)
    return directory


def run_job(lines, directory, system):
    env = environment({"MODEL": DEMO, "PATH": os.path.dirname(DSACAL) + os.pathsep + os.environ["PATH"]})
    if system == "GitHub":
        env.update(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=os.path.join(directory, "summary.md"))
    return subprocess.run(["bash", "-e", "-c", "\n".join(lines)], cwd=directory, env=env, capture_output=True,
                          timeout=500, check=False)


def test_there_is_a_job_for_each_system():
    equal([system for system, _, _ in jobs()], ["GitHub", "GitLab"], "jobs")
    for system, lines, junit in jobs():
        expect(any("dsacal verify pattern.yaml" in line and f"--junit {junit}" in line for line in lines), system)


def test_jobs_pass_on_the_demo():
    for system, lines, junit in jobs():
        directory = checkout()
        done = run_job(lines, directory, system)
        equal(done.returncode, 0, f"{system}: {done.stderr.decode()}")
        root = xml.fromstring(read(directory, junit).decode())
        equal((root.get("failures"), root.get("errors"), root.get("skipped")), ("0", "0", "0"), system)
        expect(int(root.get("tests")) == 4, f"{system}: three figures and a bound: {root.get('tests')}")


def test_jobs_fail_when_the_pattern_does():
    system, lines, junit = jobs()[0]
    directory = checkout()
    text = read(directory, "pattern.yaml").decode()
    flipped = text.replace("F" * (LAYERS - 3) + "SFF", "F" + "S" * (LAYERS - 1), 1)
    write(flipped, directory, "pattern.yaml")
    done = run_job(lines, directory, system)
    equal(done.returncode, 1, f"{system}: {done.stderr.decode()}")
    expect(int(xml.fromstring(read(directory, junit).decode()).get("failures")) > 0, "no failure in JUnit")
    equal(done.stderr.decode().count("::error "), 1, "annotations")
    expect("got worse" in read(directory, "summary.md").decode(), "the summary")


def test_the_shown_options_exist():
    shown = set(re.findall(r"--[a-z][a-z0-9-]+", read(ROOT, "docs", "ci.md").decode()))
    known = good("help", "verify").out + good("help", "diff").out
    for option in shown:
        expect(f"{option} " in known or f"{option}\n" in known, f"docs/ci.md: verify has no {option}")


main(globals())
