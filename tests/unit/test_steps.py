"""Where steps end: the rules on text, and on tokens that join to the original again."""

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from airls_ray.config.schema import FileTaskConfig
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.text.step_rules.delimiter import Rule
from airls_ray.text.steps import cut, named_rule, piece_ends

EVERY = 1 if os.environ.get("AIRLS_RAY_TEST_ALL") else 20  # all of them take a minute and a half
DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere"))
RULES = ["delimiter", "lines", "blank_lines", "sentences", "numbered", "code_lines"]


def pieces(text, rule):
    ends = [0, *cut(text, named_rule(rule)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def save(tokenizer, folder) -> None:
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))


def codec(folder, rule, merged=()) -> TextCodec:
    """A byte-level tokenizer of single bytes and some longer tokens."""
    if not (folder / "tokenizer.json").is_file():
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({piece: token for token, piece in enumerate(alphabet)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_tokens(list(merged))
        save(tokenizer, folder)
    task = make_task(FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl", steps=rule))
    return TextCodec.from_folder(folder, task)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("It is 3.14 m. Then 2.5.", ["It is 3.14 m.", " Then 2.5."]),
        ("See e.g. Fig. 3 and Eq. 2. So", ["See e.g. Fig. 3 and Eq. 2.", " So"]),
        ("Mr. Lee vs. Dr. Ray. End", ["Mr. Lee vs. Dr. Ray.", " End"]),
        ("The U.S. team. End", ["The U.S. team.", " End"]),
        ('He said "yes." Then (no.) End', ['He said "yes."', " Then (no.)", " End"]),
        ("1. First one. 2 more.", ["1. First one.", " 2 more."]),
        ("So $x=1. Y$ holds. End", ["So $x=1. Y$ holds.", " End"]),
        ("We get $x = 2.$ Then", ["We get $x = 2.$", " Then"]),
        ("\\[ a = 1. B = 2. \\] Next", ["\\[ a = 1. B = 2. \\]", " Next"]),
        ("It costs $12. She pays $6. End", ["It costs $12.", " She pays $6.", " End"]),
        ("no end\n\nanother one", ["no end\n\n", "another one"]),
        ("approx. five pies. End", ["approx. five pies.", " End"]),
        ("The wall is 3 ft. The end", ["The wall is 3 ft.", " The end"]),
    ],
)
def test_sentences_by_hand(text, steps):
    assert pieces(text, "sentences") == steps


@pytest.mark.parametrize(
    ("rule", "text", "steps"),
    [
        ("lines", "\na\n\n\nb\n", ["\na\n\n\n", "b\n"]),
        ("lines", "a\r\nb", ["a\r\n", "b"]),
        ("blank_lines", "a\nb\n \n\nc\n\n", ["a\nb\n \n\n", "c\n\n"]),
        (
            "numbered",
            "Plan:\n1. a 3.14\nmore\n(2) b\nStep 3: c",
            ["Plan:\n", "1. a 3.14\nmore\n", "(2) b\n", "Step 3: c"],
        ),
        ("numbered", "a\n3.5 is no number\n**Step 4:** b", ["a\n3.5 is no number\n", "**Step 4:** b"]),
        ("code_lines", "x = [1,\n  2]\ny = 1\n", ["x = [1,\n  2]\n", "y = 1\n"]),
        ("code_lines", "s = '''a\n(b'''\nt = \"(\"  # (\nu", ["s = '''a\n(b'''\n", 't = "("  # (\n', "u"]),
        ("code_lines", "a = 1 + \\\n  2\n\n\nb", ["a = 1 + \\\n  2\n\n\n", "b"]),
        ("code_lines", "f(1\n\ng = 2\nh", ["f(1\n\n", "g = 2\n", "h"]),  # never closed: a blank line ends it
    ],
)
def test_rules_by_hand(rule, text, steps):
    assert pieces(text, rule) == steps


@pytest.mark.parametrize("rule", RULES[1:])
@pytest.mark.parametrize("text", ["", " \n\n ", "one", "\n\none"])
def test_texts_without_an_end_are_one_step(rule, text):
    assert cut(text, named_rule(rule)) == []


def test_the_delimiter_is_found_in_pieces_as_in_their_whole_text():
    def by_whole_text(found, delimiter):
        ends, step = [], ""
        for position, piece in enumerate(found, 1):
            step += piece
            if delimiter in step:
                blank = not step.replace(delimiter, "").strip()
                step = step.rpartition(delimiter)[2]
                if not blank:
                    ends.append(position)
                elif ends:
                    ends[-1] = position
        return [*ends[:-1], len(found)] if ends and not step.strip() else ends

    rng = Random(0)
    for delimiter in ("\n", "\n\n", "aa", "aba"):
        rule = Rule(delimiter)
        for _ in range(2000):
            found = ["".join(rng.choices("ab\n", k=rng.randrange(4))) for _ in range(rng.randrange(9))]
            assert rule.piece_ends(found) == by_whole_text(found, delimiter)


def test_the_time_of_a_rule_grows_with_the_length_of_the_text_alone():
    begun = time.process_time()
    assert piece_ends([" word"] * 60_000, named_rule("delimiter")) == []
    assert cut("a" + "\n" * 20_000, named_rule("blank_lines")) == []
    assert time.process_time() - begun < 2.0


def test_a_token_belongs_to_the_step_in_which_it_begins(tmp_path):
    texts = codec(tmp_path, "lines", merged=("b\nc", "\nd\n"))
    tokens = texts.encode_trace("ab\ncd\nd\nd")[:-1]
    assert [texts.decode([token]) for token in tokens] == ["a", "b\nc", "d", "\nd\n", "d"]
    # "b\nc" begins in the first line and "\nd\n" in the second, of which it takes the whole third.
    assert texts.step_texts(tokens, texts.step_ends(tokens)) == ["ab\nc", "d\nd\n", "d"]


def test_what_a_token_leaves_of_a_step_is_no_step_if_it_is_blank(tmp_path):
    texts = codec(tmp_path, "lines", merged=("a\nb",))
    tokens = texts.encode_trace("a\nb\nc")
    assert texts.step_texts(tokens, texts.step_ends(tokens)) == ["a\nb\n", "c"]


def test_characters_of_several_tokens_stay_whole(tmp_path):
    texts = codec(tmp_path, "lines")
    tokens = texts.encode_trace("é\n€uro\nü")
    ends = texts.step_ends(tokens)
    assert texts.step_texts(tokens, ends) == ["é\n", "€uro\n", "ü"] and ends[-1] == len(tokens)


def test_only_tokens_that_end_a_step_whatever_follows_stop_a_sampler(tmp_path):
    texts = codec(tmp_path, "blank_lines", merged=(".\n\n", ".\n", ". "))
    assert [texts.decode([token]) for token in texts.step_stop_ids()] == [".\n\n"]
    assert codec(tmp_path, "sentences").step_stop_ids() == []
    assert not named_rule("sentences").surely_ends(". ") and named_rule("lines").surely_ends("x\n")


def traces():
    gsm8k = [json.loads(line)["answer"] for line in (DATA / "gsm8k/train.jsonl").open()]
    math = [json.loads(line)["solution"] for line in (DATA / "math/math_demonstrations.jsonl").open()]
    return [*gsm8k, *math]


@pytest.mark.skipif(not DATA.is_dir(), reason="AIRLS_RAY_TEST_DATA is not set")
def test_steps_of_published_traces_join_to_the_original_tokens(tmp_path):
    found = traces()
    assert len(found) == 7473 + 4500
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(found, trainer)
    save(tokenizer, tmp_path)
    encoded = None
    several = {}
    found = found[::EVERY]
    for rule in RULES:
        texts = codec(tmp_path, rule)
        encoded = encoded or [texts.encode_trace(trace) for trace in found]
        several[rule] = 0
        for trace, tokens in zip(found, encoded, strict=True):
            ends = texts.step_ends(tokens)
            starts = [0, *ends[:-1]]
            steps = texts.step_texts(tokens, ends)
            joined = [t for start, end in zip(starts, ends, strict=True) for t in tokens[start:end]]
            assert joined == tokens
            assert all(step.strip() for step in steps), (rule, trace)
            assert "".join(steps) == trace
            several[rule] += len(steps) > 1
    assert min(several["lines"], several["sentences"]) > 0.7 * len(found), several
