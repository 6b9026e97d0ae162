"""Text to tokens and back, and where steps end."""

import json
import subprocess
import sys
from itertools import islice

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from airls_ray.config.schema import ArithmeticTaskConfig, CountdownTaskConfig, FileTaskConfig
from airls_ray.data.problems import ProblemStream, problems_to_table
from airls_ray.data.schemas import TRACES
from airls_ray.errors import DataError, ModelError
from airls_ray.tasks import Problem, make_task
from airls_ray.tasks.families.arithmetic import ArithmeticTask
from airls_ray.text.codec import TextCodec, build_tokenizer, encode_traces
from airls_ray.text.make_tokenizer import check_spelling
from airls_ray.text.tokenizer_files import load_tokenizer, require_same_tokens
from tests.unit.prm_folders import space_tokenizer

CONFIGS = [
    ArithmeticTaskConfig(),
    ArithmeticTaskConfig(operations=4, modulus=97),
    CountdownTaskConfig(),
]


def codec(task, folder) -> TextCodec:
    build_tokenizer(task, folder)
    return TextCodec.from_folder(folder, task)


def file_task(delimiter="\n\n"):
    return make_task(FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl", step_delimiter=delimiter))


def byte_codec(folder, delimiter="\n\n", extra=("\n\n", ".\n", "\n\n\n", "ab\n\ncd")) -> TextCodec:
    """A byte-level tokenizer as large models have: single bytes, and some merged tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: token for token, piece in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(extra))
    tokenizer.add_special_tokens(["<|end|>"])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))
    return TextCodec.from_folder(folder, file_task(delimiter))


@pytest.mark.parametrize("config", CONFIGS)
def test_problems_survive_the_round_trip(tmp_path, config):
    task = make_task(config)
    texts = codec(task, tmp_path)
    for problem in islice(task.problems("train", 1), 300):
        (trace,) = problem.traces
        prompt, response = texts.encode_prompt(problem.prompt), texts.encode_trace(trace)
        assert texts.decode(prompt) == problem.prompt
        assert texts.decode(response) == trace
        assert response[-1] == texts.eos_id not in response[:-1]
        steps = texts.step_texts(response, texts.step_ends(response))
        assert "".join(steps) == trace and all(task.step_truth(problem, steps))


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_loads_the_same_tokenizer(tmp_path, config):
    from transformers import AutoTokenizer

    task = make_task(config)
    texts, other = codec(task, tmp_path), None
    other = AutoTokenizer.from_pretrained(str(tmp_path))
    assert (other.eos_token_id, other.pad_token_id) == (texts.eos_id, texts.pad_id)
    assert len(other) == texts.vocab_size == 2 + len(task.vocabulary())
    for problem in islice(task.problems("train", 2), 20):
        tokens = texts.encode_trace(problem.traces[0])
        assert other(problem.traces[0])["input_ids"] == tokens[:-1]
        assert other.decode(tokens, skip_special_tokens=True) == problem.traces[0]


def test_one_token_per_number_and_white_space_is_dropped(tmp_path):
    texts = codec(make_task(ArithmeticTaskConfig(modulus=97)), tmp_path)
    tokens = texts.encode_prompt(" 12 + 96 =\n")
    assert [texts.decode([token]) for token in tokens] == ["12", "+", "96", "="]


def test_text_without_a_token_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"contains '98', which is no token"):
        codec(make_task(ArithmeticTaskConfig(modulus=97)), tmp_path).encode_prompt("98+1=")


def test_padding_and_unknown_ids_have_no_text(tmp_path):
    texts = codec(make_task(ArithmeticTaskConfig()), tmp_path)
    tokens = texts.encode_trace("1+2=3;")
    assert texts.decode([*tokens, texts.pad_id, 10_000]) == "1+2=3;"


@pytest.mark.parametrize(
    ("text", "eos", "ends"),
    [
        ("1+2=3;3*2=6;", True, [6, 13]),  # the end of sequence belongs to the last step
        ("1+2=3;3*2=6;", False, [6, 12]),
        ("1+2=3;3*2", False, [6, 9]),  # cut off
        ("1+2=3;3*2", True, [6, 10]),
        (";;1", False, [1, 2, 3]),
        ("", True, [1]),
        ("", False, []),
    ],
)
def test_step_ends_by_hand(tmp_path, text, eos, ends):
    texts = codec(make_task(ArithmeticTaskConfig()), tmp_path)
    tokens = texts.encode_trace(text) if eos else texts.encode_prompt(text)
    assert texts.step_ends(tokens) == ends


@pytest.mark.parametrize(
    ("pieces", "steps"),
    [
        (["one", "\n", "\n", "two", "\n", "\n"], ["one\n\n", "two\n\n"]),  # split over tokens
        (["one", "\n\n", "two"], ["one\n\n", "two"]),
        (["one", ".\n", "\n", "two"], ["one.\n\n", "two"]),  # begins within a token
        (["one", "ab\n\ncd", "two", "\n\n"], ["oneab\n\ncd", "two\n\n"]),  # lies inside a token
        (["one", "\n\n\n", "\n", "two"], ["one\n\n\n", "\ntwo"]),
        (["one", "\n\n", "\n\n", "two"], ["one\n\n\n\n", "two"]),  # blank text is no step of its own
        (["one", "\n\n", "\n"], ["one\n\n\n"]),
        (["\n\n", "one"], ["\n\none"]),
        (["é", "\n\n", "€", "\n\n"], ["é\n\n", "€\n\n"]),  # characters of several tokens
        (["one"], ["one"]),
    ],
)
def test_steps_of_a_general_tokenizer(tmp_path, pieces, steps):
    texts = byte_codec(tmp_path)
    tokens = [token for piece in pieces for token in texts.encode_trace(piece)[:-1]] + [texts.eos_id]
    ends = texts.step_ends(tokens)
    assert ends[-1] == len(tokens) and sorted(set(ends)) == ends
    assert texts.step_texts(tokens, ends) == steps


def test_bytes_of_no_character_leave_the_steps_of_a_tokenizer_with_byte_fallback(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b"]
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    texts = TextCodec.from_folder(tmp_path, file_task("\n"))
    # The decoder makes one text of bytes that stand together: those behind the line end take it along.
    response = [vocabulary[piece] for piece in ("a", "<0x0A>", "<0xF0>", "<0x9F>", "b", "<0x0A>", "a")]
    assert texts.step_ends(response) == [2, 6, 7]


def test_a_general_tokenizer_without_padding_pads_with_its_end(tmp_path):
    texts = byte_codec(tmp_path)
    assert texts.pad_id == texts.eos_id == texts.vocab_size - 1
    assert texts.decode(texts.encode_trace("naïve €\n\nx")) == "naïve €\n\nx"


def test_a_built_in_task_works_with_a_general_tokenizer(tmp_path):
    byte_codec(tmp_path)
    task = make_task(CountdownTaskConfig())
    texts = TextCodec.from_folder(tmp_path, task)
    response = texts.encode_trace("44-15=29,79-29=50")
    assert texts.step_texts(response, texts.step_ends(response)) == ["44-15=29,", "79-29=50"]


def test_a_tokenizer_without_eos_is_an_error(tmp_path):
    task = make_task(ArithmeticTaskConfig())
    build_tokenizer(task, tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=f"tokenizer in {tmp_path} has no end-of-sequence token"):
        TextCodec.from_folder(tmp_path, task)


def test_a_tokenizer_of_other_settings_is_an_error(tmp_path):
    build_tokenizer(make_task(ArithmeticTaskConfig(modulus=10)), tmp_path)
    with pytest.raises(ModelError, match=r"lacks 87 tokens of task 'arithmetic', the first is '10'"):
        TextCodec.from_folder(tmp_path, make_task(ArithmeticTaskConfig(modulus=97)))


@pytest.mark.parametrize("content", ["{", '{"model": 1}'])
def test_a_broken_tokenizer_is_an_error(tmp_path, content):
    task = make_task(ArithmeticTaskConfig())
    build_tokenizer(task, tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"cannot read the tokenizer"):
        TextCodec.from_folder(tmp_path, task)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"cannot load a tokenizer"):
        TextCodec.from_folder(tmp_path, file_task())


def test_a_task_without_vocabulary_gets_no_tokenizer(tmp_path):
    with pytest.raises(ModelError, match=r"set model.path"):
        build_tokenizer(file_task(), tmp_path)


class Spelled(ArithmeticTask):
    """A task whose model has these words alone."""

    def __init__(self, *words: str) -> None:
        super().__init__(ArithmeticTaskConfig())
        self.words = list(words)

    def vocabulary(self) -> list[str]:
        return self.words


@pytest.mark.parametrize(
    ("words", "text", "pieces"),
    [
        (("0", "2", " ", "\n", ";"), "2 0\n2  0;", ["2", " ", "0", "\n", "2", " ", " ", "0", ";"]),
        (("0", "12", " ", ";"), "12 0;", ["12", " ", "0", ";"]),
        (("up", "upper", "7", ";"), "upperup7;", ["upper", "up", "7", ";"]),
        (("go left", "go", " ", ";"), "go go left;", ["go", " ", "go left", ";"]),
        (("0", "12", ";"), "12 0 ;", ["12", "0", ";"]),
    ],
)
def test_a_vocabulary_cuts_text_into_its_words_and_keeps_the_white_space_that_it_has(
    tmp_path, words, text, pieces
):
    task = Spelled(*words)
    build_tokenizer(task, tmp_path)
    ours = TextCodec.from_folder(tmp_path, task).encode_prompt(text)
    library = load_tokenizer(tmp_path, chat=False).backend
    assert [library.id_to_token(token) for token in ours] == pieces
    assert library.encode(text, add_special_tokens=False).ids == ours
    assert library.decode(ours) == "".join(pieces)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2;", r"the text '1 2;' would become '12;', since the vocabulary has no white space"),
        ("13;", r"contains '13', which is no token"),
        ("1x;", r"contains 'x', which is no token"),
    ],
)
def test_text_that_a_vocabulary_cannot_give_back_is_said(text, said):
    check_spelling("12;", ["1", "2", "12", ";"])
    with pytest.raises(DataError, match=said):
        check_spelling(text, ["1", "2", "12", ";"])


def test_a_vocabulary_without_the_end_of_a_step_is_an_error(tmp_path):
    task = Spelled("1", "2")
    build_tokenizer(task, tmp_path)
    with pytest.raises(ModelError, match=r"steps of task 'arithmetic' end with ';', which is no word"):
        TextCodec.from_folder(tmp_path, task)


def test_the_chat_template_is_applied(tmp_path):
    byte_codec(tmp_path)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}:{% endif %}"
    config = {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    texts = TextCodec.from_folder(tmp_path, file_task(), "chat")
    assert texts.decode(texts.encode_prompt("hi")) == "<user>hi:"
    assert texts.decode(texts.encode_trace("yo")) == "yo"


def test_words_around_a_problem_come_with_and_without_a_chat_template(tmp_path):
    byte_codec(tmp_path)
    words = {"prompt_template": "Q: {prompt}{}\nA:", "system_prompt": "Be brief."}
    task = make_task(FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl", **words))
    texts = TextCodec.from_folder(tmp_path, task)
    assert texts.decode(texts.encode_prompt("hi {prompt}")) == "Be brief.\n\nQ: hi {prompt}{}\nA:"
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    config = {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    chat = TextCodec.from_folder(tmp_path, task, "chat")
    assert chat.decode(chat.encode_prompt("hi")) == "<system>Be brief.<user>Q: hi{}\nA:"


def test_a_missing_chat_template_is_an_error(tmp_path):
    task = make_task(ArithmeticTaskConfig())
    build_tokenizer(task, tmp_path)
    with pytest.raises(ModelError, match=r"no chat template; set model.prompt_template to plain"):
        TextCodec.from_folder(tmp_path, task, "chat")


def test_encoded_traces_follow_their_schema(tmp_path):
    task = make_task(ArithmeticTaskConfig())
    texts = codec(task, tmp_path)
    problems = ProblemStream(task, "train", 0).take(20)
    traces = encode_traces(problems, texts, 256)
    assert traces.schema.equals(TRACES, check_metadata=True)
    for group, row in enumerate(traces.to_pylist()):
        assert row["group"] == group and row["problem_id"] == problems["problem_id"][group].as_py()
        assert texts.decode(row["prompt"]) == problems["prompt"][group].as_py()
        assert texts.decode(row["response"]) == problems["traces"][group][0].as_py()
        assert row["response"][-1] == texts.eos_id and row["step_ends"] == texts.step_ends(row["response"])


def test_problems_without_traces_are_left_out_and_groups_stay(tmp_path):
    texts = codec(make_task(ArithmeticTaskConfig()), tmp_path)
    problems = [
        Problem("a", "1=", "1", ("1+1=2;",)),
        Problem("b", "2=", "2"),
        Problem("c", "3=", "3", ("3;",)),
    ]
    assert encode_traces(problems_to_table(problems), texts, 64)["group"].to_pylist() == [0, 2]
    assert encode_traces(problems_to_table([problems[1]]), texts, 64).num_rows == 0


def test_traces_are_drawn_by_seed_and_problem(tmp_path):
    texts = codec(make_task(ArithmeticTaskConfig()), tmp_path)
    table = problems_to_table([Problem(f"p{i}", "1=", "1", tuple("123456789")) for i in range(50)])

    def drawn(seed):
        return [texts.decode(row) for row in encode_traces(table, texts, 64, seed)["response"].to_pylist()]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 5 and set(drawn(None)) == {"1"}


def test_a_trace_longer_than_the_context_is_an_error(tmp_path):
    texts = codec(make_task(ArithmeticTaskConfig()), tmp_path)
    table = problems_to_table([Problem("long", "1+1=", "2", ("1+1=2;" * 3,))])
    assert encode_traces(table, texts, 23).num_rows == 1
    with pytest.raises(DataError, match=r"'long': prompt and trace have 23 tokens, but .* is 22"):
        encode_traces(table, texts, 22)


def test_text_is_handled_without_torch_and_transformers(tmp_path):
    build_tokenizer(make_task(ArithmeticTaskConfig()), tmp_path)
    code = (
        "import sys\nfrom airls_ray.config.schema import ArithmeticTaskConfig\n"
        "from airls_ray.tasks import make_task\nfrom airls_ray.text.codec import TextCodec\n"
        f"TextCodec.from_folder({str(tmp_path)!r}, make_task(ArithmeticTaskConfig())).encode_prompt('1+2=')\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_prm_that_numbers_tokens_otherwise_is_refused(tmp_path):
    build_tokenizer(make_task(ArithmeticTaskConfig(modulus=10)), tmp_path / "policy")
    build_tokenizer(make_task(CountdownTaskConfig()), tmp_path / "prm")
    require_same_tokens(tmp_path / "policy", tmp_path / "policy")
    with pytest.raises(ModelError, match=r"another tokenizer than the policy .*: '.' is number"):
        require_same_tokens(tmp_path / "policy", tmp_path / "prm")


def test_a_step_keeps_the_spaces_that_it_begins_with_where_decoding_takes_one_away(tmp_path):
    space_tokenizer(tmp_path)
    codec = TextCodec.from_folder(tmp_path, file_task("\n"))
    response = codec.encode_trace("if a:\n    b = 1\n")
    assert codec.step_texts(response, codec.step_ends(response)) == ["if a:\n", "    b = 1\n"]
