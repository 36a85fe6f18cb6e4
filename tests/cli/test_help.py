"""dsacal help, the manual page and the completions: all from the option table, all in step with it."""
# sanitizers: yes
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time

import harness
from harness import DSACAL, ROOT, equal, expect, good, read, refused, run, scratch, write

COMMANDS = re.findall(r"^  (\w+) ", good("help").out, re.M)


def options_of(command):
    """Every --option that its help lists in front of a line."""
    names = re.findall(r"^  --([a-z0-9-]+)(?:, --([a-z0-9-]+))?", good("help", command).out, re.M)
    return [n for pair in names for n in pair if n]


def examples_of(command):
    text = good("help", command).out
    return [line.strip() for line in text.split("\nExample", 1)[1].split("\n")[1:] if line.strip()]


def test_every_command_has_examples_whose_options_exist():
    for command in COMMANDS:
        if command == "help":
            continue
        lines = examples_of(command)
        expect(lines, f"{command} has no example")
        for line in lines:
            words = shlex.split(re.sub(r"^source <\((.*)\)$", r"\1", line).split(" > ")[0].split(" | ")[0])
            equal(words[:2], ["dsacal", command], f"the example {line!r}")
            # The last option asks for help, so everything in front of it has been parsed.
            done = run(*[w for w in words[1:] if w != "--config"], "--help")
            equal((done.status, done.err), (0, ""), f"the example {line!r}")


def test_the_manual_page_is_the_one_in_docs_and_names_everything():
    page = good("help", "--man").out
    equal(page, read(ROOT, "docs", "dsacal.1").decode(), "docs/dsacal.1 (make man writes it again)")
    expect(page.isascii(), "the page is not ASCII")
    plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
    for command in COMMANDS:
        expect(re.search(rf"^\.SS dsacal {command}\b", plain, re.M), f"no section on {command}")
        for option in options_of(command):
            expect(re.search(rf"^\.TP\n(--[a-z-]+, )?--{option}\b", plain, re.M), f"no entry of --{option}")


def test_the_manual_page_is_clean_for_formatters():
    page = os.path.join(ROOT, "docs", "dsacal.1")
    if shutil.which("mandoc"):
        done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], stdout=subprocess.PIPE, text=True, check=False)
        # A date would differ from build to build.
        left = [line for line in done.stdout.splitlines() if "missing date" not in line]
        equal(left, [], "mandoc's warnings")
        text = subprocess.run(["mandoc", "-Tascii", page], stdout=subprocess.PIPE, text=True, check=True).stdout
        text = re.sub(r".\x08", "", text)
        for words in ("--config-json FILE", "EXIT STATUS", "dsacal export runs/legal/pattern.yaml --engine vllm --pp 2"):
            expect(words in text, f"the page does not show {words!r}")
    if shutil.which("groff"):
        done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", page], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
        equal((done.returncode, done.stderr), (0, ""), "groff's warnings")


def bash_completes(*words, here=None):
    """What <TAB> offers behind these words, as bash splits a line: '=' is a word of its own."""
    script = write(good("completion", "bash").out, scratch(), "dsacal.bash")
    program = """source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dsacal; printf '%s\\n' "${COMPREPLY[@]}" """
    done = subprocess.run(["bash", "-u", "-c", program, "bash", script, "dsacal", *words], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=here, check=False)
    equal(done.stderr, "", f"bash's complaints about {words}")
    return sorted(filter(None, done.stdout.split("\n")))


def test_bash_completes_commands_options_and_values():
    equal(bash_completes("cal"), ["calibrate"], "a command")
    equal(bash_completes(""), sorted([*COMMANDS, "--help", "--version"]), "all commands")
    for command in COMMANDS:
        found = bash_completes(command, "--")
        equal(set(found) >= {"--help", *(f"--{o}" for o in options_of(command) if command != "help")}, True,
              f"options of {command}: {found}")
    equal(bash_completes("calibrate", "--sea"), ["--search"], "an option")
    equal(bash_completes("calibrate", "--no-r"), ["--no-refine"], "a switch's other name")
    equal(bash_completes("calibrate", "--search", ""), ["exact", "naive", "racing"], "values")
    equal(bash_completes("calibrate", "--search", "=", "r"), ["racing"], "values behind =")
    equal(bash_completes("export", "--engine", "="), ["llamacpp", "lmdeploy", "sglang", "transformers", "trtllm",
                                                      "vllm"], "values right behind =")
    equal(bash_completes("bench", "--device", "c"), ["cpu", "cuda"], "a device")
    equal(bash_completes("completion", ""), ["bash", "zsh"], "an operand")
    equal(bash_completes("help", "ex"), ["export"], "help's operand")
    equal(bash_completes("calibrate", "--budget-kl", ""), [], "a number")
    equal(bash_completes("nonsense", "--"), [], "an unknown command")


def test_bash_completes_paths():
    here = scratch()
    os.mkdir(os.path.join(here, "run one"))
    write("x", here, "pattern.yaml")
    equal(bash_completes("export", "", here=here), ["pattern.yaml", "run one"], "files")
    equal(bash_completes("report", "r", here=here), ["run one"], "directories")
    equal(bash_completes("report", "p", here=here), [], "no file where a directory is wanted")
    equal(bash_completes("calibrate", "--model", "", here=here), ["run one"], "a directory")
    equal(bash_completes("calibrate", "--corpus", "legal", "=", "p", here=here), ["pattern.yaml"], "NAME=PATH")


def zsh_types(line):
    """What the line reads after <TAB> in a real zsh that has the completions."""
    here = scratch()
    write(good("completion", "zsh").out, here, "_dsacal")
    program, terminal = pty.fork()
    if program == 0:
        os.environ.update(TERM="dumb", HOME=here, ZDOTDIR=here)
        os.execvp("zsh", ["zsh", "-f", "-i"])
    out = ""

    def until(word, seconds=20):
        nonlocal out
        end = time.time() + seconds
        while word not in out and time.time() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                out += os.read(terminal, 65536).decode("utf-8", "replace")
        expect(word in out, f"zsh did not say {word!r}: {out[-500:]!r}")

    try:
        # The marks are put together by the shell, so that its echo of what is typed is not taken for them.
        os.write(terminal, f"unsetopt prompt_cr; PS1=; fpath=({here} $fpath); autoload -Uz compinit; "
                           f"compinit -u -D; dsacal() {{ print -r -- \"GO\"T: \"$@\" }}; print REA''DY\n".encode())
        until("READY")
        os.write(terminal, line.encode() + b"\t\n")
        until("GOT: ")
        out = out.split("GOT: ")[-1]
        until("\n")
        return out.split("\r")[0].split("\n")[0].strip()
    finally:
        os.close(terminal)
        os.waitpid(program, 0)


def test_zsh_completes():
    script = write(good("completion", "zsh").out, scratch(), "_dsacal")
    if not shutil.which("zsh"):
        return
    equal(subprocess.run(["zsh", "-n", script], check=False).returncode, 0, "zsh -n")
    equal(zsh_types("dsacal cal"), "calibrate", "a command")
    equal(zsh_types("dsacal export --eng"), "export --engine", "an option")
    equal(zsh_types("dsacal export --engine vl"), "export --engine vllm", "a value")
    equal(zsh_types("dsacal calibrate --search=nai"), "calibrate --search=naive", "a value behind =")
    equal(zsh_types("dsacal help insp"), "help inspect", "an operand")


def test_installed_files_are_where_shells_and_man_look():
    here = scratch()
    if os.path.realpath(DSACAL) != os.path.join(ROOT, "build", "release", "dsacal"):
        return  # make install takes that one
    subprocess.run(["make", "-s", "-C", ROOT, "install", f"DESTDIR={here}", "PREFIX=/usr", "-o", "all"], check=True,
                   stdout=subprocess.DEVNULL)
    share = os.path.join(here, "usr", "share")
    equal(read(share, "man", "man1", "dsacal.1"), read(ROOT, "docs", "dsacal.1"), "the page")
    equal(read(share, "bash-completion", "completions", "dsacal").decode(), good("completion", "bash").out, "bash's")
    equal(read(share, "zsh", "site-functions", "_dsacal").decode(), good("completion", "zsh").out, "zsh's")
    done = subprocess.run([os.path.join(here, "usr", "bin", "dsacal"), "--version"], stdout=subprocess.PIPE, text=True,
                          check=True)
    expect(done.stdout.startswith("dsacal "), "the program")


def test_other_shells_and_pages_are_refused():
    refused(run("completion"), 2, "bash or zsh")
    refused(run("completion", "fish"), 2, "fish")
    refused(run("completion", "bash", "zsh"), 2, "bash or zsh")
    refused(run("help", "--html"), 2, "--html")


harness.main(globals())
