#!/usr/bin/env python3
"""Writes the two synthetic corpora of the demo: contracts ("legal") and passages with questions ("rag").

A calibration corpus shows something only where the output hangs on what was read far back. So both domains are
made of invented facts (names no model can know) that are stated once and asked for later, and they ask for them
in different ways:

  legal  later clauses repeat whole names, addresses, amounts and dates, found by the term that section 1 defined
         for them ("the Supplier"), from any of the places where they stand by then;
  rag    an answer needs the one passage that speaks of the entity AND the attribute asked for, then the number of
         that passage, which stands before both.

Every document is a function of (domain, seed, index), so any number can be made and two seeds share none.

    demo_corpus.py --out calib_data/demo                          the shipped corpora
    demo_corpus.py --out /tmp/fresh --documents 64 --seed 7       as many others as wanted
"""
import argparse
import hashlib
import json
import os
import random
import subprocess
import sys

SHIPPED_SEED = 20260601
SHIPPED_DOCUMENTS = 32
# Characters, not tokens, bound a document, so that this script needs no tokenizer. With the demo tokenizer these
# bounds give 520-680 tokens (--check-tokens proves it): at least 8 x index_topk, and short enough for a CPU.
CHARS = {"legal": (1600, 1700), "rag": (1700, 1820)}

ONSETS = "b br c d dr f g gl gr h j k l m n p pr qu r s sk st t th tr v w z".split()
VOWELS = "a e i o u ai ea ie o a e i".split()
CODAS = "n r l s ck nd rt m th sk v x ll st d".split()
STREETS = "Street Lane Road Avenue Square Quay Terrace Court".split()
MONTHS = ("January February March April May June July August September October November December").split()
CURRENCIES = "USD EUR GBP CHF SEK".split()
FORMS = "Ltd LLC Inc GmbH Holdings Partners".split()


# Invented names and figures -------------------------------------------------------------------------------------

def word(rng, syllables):
    """An invented word; its last syllable is closed, as English names often are."""
    out = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables - 1))
    return (out + rng.choice(ONSETS) + rng.choice("aeiou") + rng.choice(CODAS)).capitalize()


def person(rng):
    return f"{word(rng, 2)} {word(rng, 2)}"


def town(rng):
    return word(rng, 2) + rng.choice(["", "", " Bay", " Hill", "ford", "ton", "wick"])


def company(rng):
    return f"{word(rng, 2)} {word(rng, 2)} {rng.choice(FORMS)}"


def address(rng):
    return f"{rng.randint(2, 998)} {word(rng, 2)} {rng.choice(STREETS)}, {town(rng)}"


def number(rng, low=1100, high=989999):
    return f"{rng.randint(low, high):,}"


def money(rng):
    return f"{rng.choice(CURRENCIES)} {number(rng)}"


def date(rng, low=2021, high=2049):
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(low, high)}"


def code(rng):
    return f"{''.join(rng.choice('ABCDEFGHKLMNPRSTVWXZ') for _ in range(2))}-{rng.randint(1000, 99999)}"


# Contracts ------------------------------------------------------------------------------------------------------

# kind, first party, second party, what is paid, what is given
CONTRACTS = [
    ("SUPPLY AGREEMENT", "Supplier", "Buyer", "Price", "Goods"),
    ("LEASE", "Landlord", "Tenant", "Rent", "Premises"),
    ("LICENCE AGREEMENT", "Licensor", "Licensee", "Royalty", "Works"),
    ("LOAN AGREEMENT", "Lender", "Borrower", "Principal", "Collateral"),
    ("SERVICE AGREEMENT", "Contractor", "Client", "Fee", "Services"),
    ("PURCHASE AGREEMENT", "Seller", "Purchaser", "Consideration", "Assets"),
]
OBJECTS = {
    "Goods": "crates of {w} resin|drums of {w} oil|pallets of {w} tile|rolls of {w} cable",
    "Premises": "rooms of {w} House|floors of {w} Tower|bays of the {w} Depot",
    "Works": "recordings by {w}|maps by {w}|plates of the {w} Atlas",
    "Collateral": "shares of {w} Mining|bonds of {w} Rail|acres at {w} Farm",
    "Services": "surveys of {w} Harbour|audits of {w} Mill|repairs at {w} Station",
    "Assets": "looms of {w} Works|boats of {w} Lines|trucks of {w} Freight",
}

# Each clause names the facts it repeats. {a} and {b} are the roles, {p} the payment term, {g} the thing given.
CLAUSES = [
    ("Payment", "The {b} shall pay the {p} of {amount} to {a_name} on or before {start}."),
    ("Payment", "Payment of {amount} shall be made to account {account} held by {a_name}."),
    ("Payment", "If the {p} of {amount} is late, interest of {rate} percent a year runs from the due date."),
    ("Payment", "No part of the {p}, being {amount}, is refundable after {start}."),
    ("Delivery", "The {a} shall make the {g}, namely {object}, available at {b_address}."),
    ("Delivery", "On {start} the {a} hands over {object} and the {b} signs for them."),
    ("Delivery", "Risk in {object} passes from {a_name} to {b_name} on {start}."),
    ("Notices", "Notices to the {a} go to {a_name}, {a_address}, for the attention of {agent}."),
    ("Notices", "Notices to the {b} go to {b_name}, {b_address}, and are copied to {agent}."),
    ("Notices", "The {a} may change its address, {a_address}, by letter to {b_name}."),
    ("Agent", "{agent} shall act as Agent for both the {a} and the {b} and keeps the register {account}."),
    ("Agent", "The Agent, {agent}, may inspect {object} at any time after {start}."),
    ("Agent", "If {agent} resigns, {a_name} and {b_name} appoint another Agent within {cure} days."),
    ("Default", "If the {b} does not cure a breach within {cure} days, the {a} may recover {amount}."),
    ("Default", "The {a}, {a_name}, is in default when {object} are not delivered by {start}."),
    ("Default", "After default interest of {rate} percent a year is owed by {b_name}."),
    ("Term", "This agreement starts on {start} and ends on {end}."),
    ("Term", "Unless {b_name} gives notice before {end}, the term is renewed for one year."),
    ("Term", "On {end} the {b} returns {object} to {a_address}."),
    ("Liability", "The liability of {a_name} is limited to the {p} of {amount}."),
    ("Liability", "The {b} insures {object} from {start} to {end} for not less than {amount}."),
    ("Disputes", "Disputes between {a_name} and {b_name} are heard in {court}."),
    ("Disputes", "The courts of {court} may order the {b} to pay {amount} into account {account}."),
    ("Assignment", "Neither {a_name} nor {b_name} may assign this agreement without the consent of {agent}."),
]


def contract_facts(rng, kind):
    """Every fact of one contract, drawn before any is written, so that clauses can only repeat them."""
    _, a, b, p, g = kind
    return {
        "a": a, "b": b, "p": p, "g": g,
        "a_name": company(rng), "a_address": address(rng), "b_name": company(rng), "b_address": address(rng),
        "amount": money(rng), "start": date(rng, 2021, 2034), "end": date(rng, 2035, 2049),
        "agent": person(rng), "account": code(rng),
        "object": f"{rng.randint(12, 989)} " + rng.choice(OBJECTS[g].split("|")).format(w=word(rng, 2)),
        "rate": f"{rng.randint(2, 19)}.{rng.randint(1, 9)}", "cure": str(rng.randint(6, 95)), "court": town(rng),
    }


def contract_definitions(rng, f):
    """Section 1: the parties first, the rest in any order (a fixed order could be learnt instead of looked up)."""
    rest = [
        f"The \"{f['p']}\" is {f['amount']}.",
        f"The \"Start Date\" is {f['start']} and the \"End Date\" is {f['end']}.",
        f"The \"{f['g']}\" are {f['object']}.",
        f"The \"Agent\" is {f['agent']}, with account {f['account']}.",
        f"Interest is {f['rate']} percent, the cure period {f['cure']} days, the court {f['court']}.",
    ]
    rng.shuffle(rest)
    return [f"{f['a_name']}, of {f['a_address']} (the \"{f['a']}\").",
            f"{f['b_name']}, of {f['b_address']} (the \"{f['b']}\")."] + rest


def legal_text(rng, max_chars):
    """One contract, clauses added section by section until no more fits in max_chars."""
    kind = rng.choice(CONTRACTS)
    facts = contract_facts(rng, kind)
    lines = [f"{kind[0]} {code(rng)}", "", "1. Definitions"]
    lines += [f"1.{i} {line}" for i, line in enumerate(contract_definitions(rng, facts), 1)]
    topics = sorted({topic for topic, _ in CLAUSES})
    rng.shuffle(topics)
    length, section = sum(len(line) + 1 for line in lines), 1
    while True:
        for topic in topics:
            section += 1
            clauses = [text for name, text in CLAUSES if name == topic]
            rng.shuffle(clauses)
            block = ["", f"{section}. {topic}"]
            for i, clause in enumerate(clauses, 1):
                block.append(f"{section}.{i} " + clause.format(**facts))
                if length + sum(len(line) + 1 for line in block) > max_chars:
                    block.pop()
                    return "\n".join(lines + (block if len(block) > 2 else [])) + "\n"
            lines += block
            length += sum(len(line) + 1 for line in block)
        rng.shuffle(topics)         # a long document goes round again under new section numbers


def legal_document(rng, low, high):
    """A contract of low..high characters; what falls outside is drawn again from the same stream."""
    while True:
        text = legal_text(rng, high)
        if len(text) >= low:
            return {"text": text}


# Passages and questions -----------------------------------------------------------------------------------------

# name of a topic's entities -> attributes: (statement, question, answer, value). All passages of a document speak
# of the same topic, so neither the entity nor the attribute alone finds the fact.
TOPICS = {
    "The {w} Archive": [
        ("was founded by {v}", "Who founded {e}?", "{e} was founded by {v}", person),
        ("stands in {v}", "Where does {e} stand?", "{e} stands in {v}", town),
        ("is directed by {v}", "Who directs {e}?", "{e} is directed by {v}", person),
        ("holds {v} maps", "How many maps does {e} hold?", "{e} holds {v} maps", number),
        ("was bought by {v}", "Who bought {e}?", "{e} was bought by {v}", company),
    ],
    "The {w} Bridge": [
        ("was designed by {v}", "Who designed {e}?", "{e} was designed by {v}", person),
        ("was opened on {v}", "When was {e} opened?", "{e} was opened on {v}", date),
        ("was built by {v}", "Which firm built {e}?", "{e} was built by {v}", company),
        ("cost {v}", "What did {e} cost?", "{e} cost {v}", money),
        ("leads to {v}", "Where does {e} lead?", "{e} leads to {v}", town),
    ],
    "The ship {w}": [
        ("sails under captain {v}", "Who is captain of {e}?", "{e} sails under captain {v}", person),
        ("has its home port at {v}", "What is the home port of {e}?", "{e} has its home port at {v}", town),
        ("is owned by {v}", "Who owns {e}?", "{e} is owned by {v}", company),
        ("was launched on {v}", "When was {e} launched?", "{e} was launched on {v}", date),
        ("carries {v} tons", "How many tons does {e} carry?", "{e} carries {v} tons", number),
    ],
    "The drug {w}": [
        ("was found by {v}", "Who found {e}?", "{e} was found by {v}", person),
        ("is made by {v}", "Which firm makes {e}?", "{e} is made by {v}", company),
        ("was approved on {v}", "When was {e} approved?", "{e} was approved on {v}", date),
        ("is sold as {v}", "As what is {e} sold?", "{e} is sold as {v}", code),
        ("was tested at {v}", "Where was {e} tested?", "{e} was tested at {v}", town),
    ],
    "The {w} Prize": [
        ("is paid by {v}", "Who pays {e}?", "{e} is paid by {v}", company),
        ("is worth {v}", "What is {e} worth?", "{e} is worth {v}", money),
        ("went to {v}", "To whom did {e} go?", "{e} went to {v}", person),
        ("is awarded in {v}", "Where is {e} awarded?", "{e} is awarded in {v}", town),
        ("was first given on {v}", "When was {e} first given?", "{e} was first given on {v}", date),
    ],
}
PROMPT_HEAD = "<|user|>Answer the questions from the passages and cite them.\n\n"


def rag_passages(rng, count):
    """Returns the passage lines and, for each fact stated, (question, answer with its citation)."""
    name, attributes = rng.choice(sorted(TOPICS.items()))
    lines, facts = [], []
    for n in range(1, count + 1):
        entity = name.format(w=word(rng, 2))
        inside = entity[0].lower() + entity[1:]
        said = []
        for statement, question, answer, draw in rng.sample(attributes, 2):
            value = draw(rng)
            said.append(statement.format(v=value))
            facts.append((question.format(e=inside), answer.format(e=entity, v=value) + f" [{n}]."))
        lines.append(f"[{n}] {entity} {said[0]} and {said[1]}.")
    return lines, facts


def rag_document(rng, low, high):
    """7 or more passages and 6 or more questions whose total length is low..high characters.

    Documents longer than the shipped ones get proportionally more of both."""
    scale = max(1.0, high / CHARS["rag"][1])
    while True:
        lines, facts = rag_passages(rng, rng.randint(7, int(11 * scale)))
        asked = rng.sample(facts, min(len(facts), rng.randint(6, int(10 * scale))))
        prompt = PROMPT_HEAD + "\n".join(lines) + "\n\n"
        prompt += "\n".join(f"{i}. {q}" for i, (q, _) in enumerate(asked, 1)) + "\n<|assistant|>"
        completion = "\n".join(f"{i}. {a}" for i, (_, a) in enumerate(asked, 1)) + "\n"
        if low <= len(prompt) + len(completion) <= high:
            return {"prompt": prompt, "completion": completion}


# Files ----------------------------------------------------------------------------------------------------------

MAKERS = {"legal": legal_document, "rag": rag_document}


def document(domain, seed, index, low=None, high=None):
    """The document number `index` of a seed; the length bounds default to those of the shipped corpora."""
    default = CHARS[domain]
    rng = random.Random(f"{domain}/{seed}/{index}")
    return MAKERS[domain](rng, low or default[0], high or default[1])


def documents(domain, count, seed):
    return [document(domain, seed, i) for i in range(count)]


def document_hash(record):
    """Identity of a document by content: what "not in the training set" is checked with."""
    text = record.get("text") or record["prompt"] + "\0" + record["completion"]
    return hashlib.sha256(text.encode()).hexdigest()


def encode(tokenizer, record):
    """(ids, first index of the completion or 0): the prompt with special tokens, the completion without."""
    if "text" in record:
        return tokenizer.encode(record["text"]).ids, 0
    prompt = tokenizer.encode(record["prompt"]).ids
    return prompt + tokenizer.encode(record["completion"], add_special_tokens=False).ids, len(prompt)


def compress(data):
    """zstd level 19, by the Python package if it is there, else by the zstd tool. No checksum of the clock or
    the machine goes in, so the same tool writes the same bytes."""
    try:
        import zstandard
        return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(data)
    except ImportError:
        return subprocess.run(["zstd", "-19", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def write_corpus(path, records):
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    with open(path, "wb") as out:
        out.write(compress(lines.encode()))


def check_tokens(tokenizer_path, domain, records):
    """Fails unless every document has 520-680 tokens (and a rag completion at least 100)."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    encoded = [encode(tokenizer, r) for r in records]
    lengths = [len(ids) for ids, _ in encoded]
    completions = [len(ids) - first for ids, first in encoded if first]
    print(f"{domain}: {min(lengths)}-{max(lengths)} tokens, mean {sum(lengths) / len(lengths):.0f}"
          + (f", completions {min(completions)}-{max(completions)}" if completions else ""))
    if min(lengths) < 520 or max(lengths) > 680 or (completions and min(completions) < 100):
        sys.exit(f"{domain}: lengths outside 520-680 tokens, or a completion under 100")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder for legal.jsonl.zst and rag.jsonl.zst")
    parser.add_argument("--documents", type=int, default=SHIPPED_DOCUMENTS, metavar="N")
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED, metavar="S")
    parser.add_argument("--check-tokens", metavar="TOKENIZER", help="tokenizer.json to check the lengths with")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for domain in sorted(MAKERS):
        records = documents(domain, args.documents, args.seed)
        if args.check_tokens:
            check_tokens(args.check_tokens, domain, records)
        write_corpus(os.path.join(args.out, f"{domain}.jsonl.zst"), records)


if __name__ == "__main__":
    main()
