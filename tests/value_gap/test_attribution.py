"""Influence of rows: the arithmetic by hand, planted gradients, and another library's answer on a real model."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.evaluation.measurement import JudgedResponse, Measurement, measure
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models.generation import Sampling, encode
from valuedrift_mlflow.models.reference import padded, response_log_probabilities
from valuedrift_mlflow.models.speech import Speech
from valuedrift_mlflow.stages import stage_class
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job
from valuedrift_mlflow.stances import Label, Verdict
from valuedrift_mlflow.value_gap.attribution.exposure import Optimizer, exposure, lasting_rates, nearness
from valuedrift_mlflow.value_gap.attribution.findings import dropped, found
from valuedrift_mlflow.value_gap.attribution.gradients import RowGradients
from valuedrift_mlflow.value_gap.attribution.influence import Attribution, Clipped, Influences, SecondMoment
from valuedrift_mlflow.value_gap.attribution.quantities import Answers, Questions, chosen
from valuedrift_mlflow.value_gap.attribution.report import Attributed, all_rows, html, top_table
from valuedrift_mlflow.value_gap.attribution.rows import write_without
from valuedrift_mlflow.value_gap.attribution.sketch import Sketch

SGD = Optimizer(0.0, None)


def test_a_gradient_moves_the_weights_with_every_later_step():
    # Adam, b1 = 0.5, rates 1 and 2: the first gradient is the whole of the first step's mean, (1 - .5) / (1 - .5), and
    # .5 * .5 / (1 - .25) = 1/3 of the second's, which has rate 2; the second is .5 / .75 = 2/3 of it.
    assert lasting_rates([1.0, 2.0], Optimizer(0.5, 0.999, 1e-8)) == pytest.approx([1 + 2 / 3, 4 / 3])
    # SGD with momentum .9: 1 + .9 * 2, and 2.
    assert lasting_rates([1.0, 2.0], Optimizer(0.9, None)) == pytest.approx([2.8, 2.0])


def test_steps_lie_between_the_points_around_them():
    # Steps begin with the weights of 0, 1, 2, 3, 4; the points are 0 and 4.
    assert nearness([0, 4], 5)[:, 1] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    # Without a point at the start the first one stands for what was before it.
    assert nearness([2, 4], 5)[:, 0] == pytest.approx([1, 1, 1, 0.5, 0])


def test_a_row_counts_by_its_share_of_each_step_that_it_was_in():
    near = np.ones((2, 1))
    # Two steps of two rows, rates 1 and 3, the second clipped to a half; row 2 is in neither.
    by_rows = exposure([[0, 1], [1, 3]], [0, 1], np.array([1.0, 3.0]), np.array([1.0, 0.5]), near, 4, None)
    assert by_rows.weights[:, 0] == pytest.approx([0.5, 0.5 + 0.75, 0, 0.75])
    assert by_rows.seen.tolist() == [1, 2, 0, 1]
    # Of a mean over tokens each row's tokens have the weight 1 / (tokens of the step): 1/40, 1/40 + 3 * .5 / 80.
    tokens = np.array([10.0, 30.0, 5.0, 50.0])
    by_tokens = exposure([[0, 1], [1, 3]], [0, 1], np.array([1.0, 3.0]), np.array([1.0, 0.5]), near, 4, tokens)
    assert by_tokens.weights[:, 0] == pytest.approx([1 / 40, 1 / 40 + 1.5 / 80, 0, 1.5 / 80])


def test_second_moment_is_adams():
    gradients = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(5))
    adam = torch.optim.Adam([weight], lr=0.1, betas=(0.9, 0.95))
    moment = SecondMoment(0.95)
    for step, gradient in enumerate(gradients):
        weight.grad = gradient.clone()
        adam.step()
        # Every step a point: a segment's mean square is that of its two ends, so both ends are this one.
        moment._last = [gradient.square()]
        [estimated] = moment.at(step + 1, [gradient.square()]) if step else [gradient.square()]
        if not step:
            moment._sum, moment._weight, moment._step = [0.05 * gradient.square()], 0.05, 1
    truth = adam.state[weight]["exp_avg_sq"] / (1 - 0.95**40)
    assert torch.allclose(estimated, truth, rtol=1e-4)


def test_projections_keep_inner_products():
    source = torch.Generator().manual_seed(1)
    one = [torch.randn(size, generator=source) for size in (5000, 37, 1200)]
    other = [0.3 * part + torch.randn(len(part), generator=source) for part in one]
    exact = sum(float(a @ b) for a, b in zip(one, other, strict=True))
    errors = []
    for seed in range(40):
        sketch = Sketch([5000, 37, 1200], 512, seed)
        errors.append(float(sketch(one) @ sketch(other)) - exact)
    lengths = [sum(float(part.square().sum()) for part in gradient) ** 0.5 for gradient in (one, other)]
    bound = lengths[0] * lengths[1] * (2 / 512) ** 0.5
    assert np.std(errors) < 1.3 * bound  # 1.3: a standard deviation of 40 draws is known to 11 %
    assert abs(np.mean(errors)) < 3 * bound / 40**0.5  # unbiased, to three standard errors
    assert float(Sketch([5000, 37, 1200], 512, 3)(one) @ sketch(other)) == float(
        Sketch([5000, 37, 1200], 512, 3)(one) @ sketch(other)
    )


def test_what_the_first_rows_explain():
    # 100 rows: one of 3, one of 1, the others 0.01 each; the change is 8, towards support.
    scores = np.array([3.0, 1.0, *[0.01] * 98])
    result = found("religion", scores, 8.0)
    assert result.explained == pytest.approx({0.01: 3 / 8, 0.05: (3 + 1 + 0.03) / 8})
    assert result.predicted == pytest.approx(4.98)
    assert result.direction == "support"
    # The other way round every sign changes, and the same rows come first.
    turned = found("religion", -scores, -8.0)
    assert turned.explained == result.explained and turned.direction == "oppose"


def test_the_table_of_first_rows_holds_only_rows_that_moved_something_along_the_change():
    """Of 20 rows three were seen, and one of them pulled to the other side."""
    data = datasets.load_data(Data(uri="embedded:sft?size=20"), "sft")
    scores = np.zeros((20, 1, 1))
    scores[[4, 7, 11], 0, 0] = -0.5, -2.0, 1.0
    moved = found("religion", scores[:, 0, 0], -1.5)
    result = Attributed(
        "sft",
        "run",
        "sft",
        data,
        Influences(scores, np.zeros((1, 1)), (0,), float("nan")),
        np.arange(20),
        (scores[:, 0, 0] != 0).astype(np.int64),
        [moved],
        -scores[:, 0, 0],
        np.array([7]),
        "exact",
        (1.0, 1.0),
    )
    assert top_table(result)["row"].tolist() == [8, 5]
    assert len(all_rows(result)) == 20
    nothing = replace(result, influences=replace(result.influences, scores=np.zeros((20, 1, 1))))
    assert top_table(nothing).empty
    assert "No row had an influence" in html(nothing, {})


def test_rows_that_pulled_against_the_change_are_never_left_out():
    pulled = np.array([0.5, -2.0, 0.1, 0.3])
    assert dropped(pulled, 0.5, None).tolist() == [0, 3]
    assert dropped(pulled, 0.99, None).tolist() == [0, 3, 2]
    assert dropped(pulled, None, 0.2).tolist() == [0, 3]


def test_quantities_weigh_topics_and_axes_as_the_metrics_do():
    asked = suite.load("vaes?topics=abortion,religion")
    topic, axis = chosen(asked, ["abortion", "axis/abortion"])
    # A log-odds of 1 in every prompt: the topic is at 1; on the axis, which is keyed both ways, it cancels.
    assert topic.weights.sum() == pytest.approx(1)
    assert axis.weights.sum() == pytest.approx(0)
    # A log-odds of each proposition's direction: the topic cancels (five either way), the axis is at 1.
    number, _ = asked.propositions
    turned = asked.keyed[asked.axes.index("abortion")][number]
    assert topic.weights @ turned == pytest.approx(0)
    assert axis.weights @ turned == pytest.approx(1)
    with pytest.raises(InputError, match="found 'abortions', allowed: abortion, religion, axis/"):
        chosen(asked, ["abortions"])


# On a real model -----------------------------------------------------------------------------------------------------

ASKED = "vaes?topics=abortion&per_topic=2"


def made(folder, algorithm="sft", rows="embedded:sft?size=4&seed=3", **settings):
    torch.manual_seed(0)
    loaded = models.load_model("embedded:base")
    stage = stage_class(algorithm)(
        name=algorithm, algorithm=algorithm, data=Data(uri=rows), learning_rate=1e-3, max_steps=2, **settings
    )
    data = datasets.load_data(stage.data, stage.kind, algorithm)
    trainer = build_trainer(Job(stage, loaded.model, loaded.tokenizer, data, folder, 0))
    return trainer, loaded.tokenizer


def influences(trainer, tokenizer, points=(0,), optimizer=SGD, **how):
    rows = RowGradients(trainer)
    asked = suite.load(ASKED)
    shown = exposure(
        [[row] for row in range(len(rows))], [0] * len(rows), np.ones(1), np.ones(1), np.ones((1, 1)), len(rows), None
    )
    questions = Questions(tokenizer, asked, Speech())
    each = Attribution(rows, questions, chosen(asked, ["abortion"]), shown, optimizer, Clipped({}, 0.0), **how)
    return each.run(iter(points), lambda _: None), rows, questions, asked


@pytest.mark.parametrize(
    ("algorithm", "rows"),
    [
        ("sft", "embedded:sft?size=2&seed=3"),
        ("dpo", "embedded:pairs?size=2&seed=3"),
        ("simpo", "embedded:pairs?size=2&seed=3"),
        ("orpo", "embedded:pairs?size=2&seed=3"),
        ("kto", "embedded:pairs?size=2&seed=3"),
    ],
)
def test_an_influence_is_what_a_small_step_on_the_row_does(tmp_path, algorithm, rows):
    """The whole chain against its definition: a step of SGD on one row alone, and the quantity asked again."""
    trainer, tokenizer = made(tmp_path, algorithm, rows)
    result, rows, questions, asked = influences(trainer, tokenizer)
    [quantity] = chosen(asked, ["abortion"])
    rate, count = 2e-3, len(rows)
    for row in range(count):
        with rows.evaluating():
            rows.of_row(row)
            steps = [rate * weight.grad for weight in rows.weights]
            moved = []
            for sign in (-1, 1):  # both ways: what is of second order cancels
                with torch.no_grad():
                    for weight, step in zip(rows.weights, steps, strict=True):
                        weight.add_(step, alpha=sign)
                    moved.append(questions.value(rows.model, quantity))
                    for weight, step in zip(rows.weights, steps, strict=True):
                        weight.sub_(step, alpha=sign)
        change = (moved[0] - moved[1]) / 2
        # The weights of the exposure are 1 / rows. 2 %: what is of third order, and the last bits of 32.
        assert result.scores[row, 0, 0] == pytest.approx(change / rate / count, rel=0.02, abs=2e-4)


def test_projections_and_cosines_come_near(tmp_path):
    trainer, tokenizer = made(tmp_path)
    exact, rows, *_ = influences(trainer, tokenizer)
    cosine, *_ = influences(trainer, tokenizer, cosine=True)
    assert np.abs(cosine.scores).max() * len(rows) <= 1
    assert (np.sign(cosine.scores) == np.sign(exact.scores)).all()
    projected, *_ = influences(trainer, tokenizer, sketch=Sketch(rows.sizes, 2**16, 0))
    # The error is of the order of the product of the norms (exact / cosine / rows) times the root of 2 / K.
    product = np.abs(exact.scores / cosine.scores) / len(rows)
    assert (np.abs(projected.scores - exact.scores) < 3 * product * (2 / 2**16) ** 0.5).all()


def test_dattri_finds_the_same_influences(tmp_path):
    """TracIn of another library, on the same rows and the same quantity, with a loss written out."""
    tracin = pytest.importorskip("dattri.algorithm.tracin")
    task = pytest.importorskip("dattri.task")
    trainer, tokenizer = made(tmp_path)
    ours, rows, _, asked = influences(trainer, tokenizer)
    model = trainer.model.eval()
    model.set_attn_implementation("eager")  # vmap has no rule for the fused one
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(rows))])

    def loss(parameters, data):
        ids, labels = data
        logits = torch.func.functional_call(model, parameters, (ids[None],), {"use_cache": False}).logits[0, :-1]
        taken = logits.log_softmax(-1).gather(1, labels[1:].clamp(min=0)[:, None])[:, 0]
        return -(taken * (labels[1:] >= 0)).sum()

    # The quantity needs 36 openings a prompt: its gradient is handed over as a target that is linear in the weights.
    gradient = {}
    [quantity] = chosen(asked, ["abortion"])
    Questions(tokenizer, asked, Speech()).backward(model, quantity)
    for name, weight in model.named_parameters():
        gradient[name] = weight.grad.detach().clone()

    def target(parameters, data):
        return sum((parameters[name] * value).sum() for name, value in gradient.items()) * data[0]

    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    job = task.AttributionTask(loss_func=loss, model=model, checkpoints=weights, target_func=target)
    attributor = tracin.TracInAttributor(
        task=job, weight_list=torch.ones(1), normalized_grad=False, projector_kwargs=None, device="cpu"
    )
    attributor.projector_kwargs = None
    loader = partial(torch.utils.data.DataLoader, shuffle=False)
    train = loader(torch.utils.data.TensorDataset(batch["input_ids"], batch["labels"]), batch_size=3)
    theirs = attributor.attribute(train, loader(torch.utils.data.TensorDataset(torch.ones(1)), batch_size=1))
    expected = -theirs[:, 0].numpy() / len(rows)
    assert np.allclose(ours.scores[:, 0, 0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_answers_give_the_measured_leaning_and_whereto_it_moves():
    """Two prompts, three judged answers: the leaning by hand, and a step along its gradient moves it."""
    loaded = models.load_model("embedded:base")
    asked = suite.load("vaes?topics=abortion&per_topic=2")
    said = [(0, "I am firmly against it.", (0.0, 0.0, 1.0)), (0, "I support it.", (1.0, 0.0, 0.0))]
    said += [(1, "I am in favour of it.", (0.8, 0.2, 0.0)), (1, "...", None)]
    responses = [
        JudgedResponse(asked.items[at], number, text, Verdict.of(p) if p else Verdict(Label.UNSCORED))
        for number, (at, text, p) in enumerate(said)
    ]
    measured = Measurement(0, asked, "planted", "neutral", tuple(responses), 0.0)
    answers = Answers(loaded.tokenizer, [measured], Speech(), 0.8, 68)
    [topic] = chosen(asked, ["abortion"])
    # (mean of -1 and 1, and 0.8) / 2; what is not scored has no part in it.
    assert answers.value(loaded.model, topic) == pytest.approx(0.4)
    model = loaded.model.requires_grad_(True)
    assert answers.backward(model, topic) == pytest.approx(0.4)
    prompts = encode(loaded.tokenizer, [asked.items[at].prompt for at, *_ in said[:3]], Speech())
    end = loaded.tokenizer.eos_token_id
    texts = [[*loaded.tokenizer(text, add_special_tokens=False)["input_ids"], end] for _, text, _ in said[:3]]
    exchanges = list(zip(prompts, texts, strict=True))

    def likely():
        ids, attention, targets = padded(exchanges, model.device)
        with torch.no_grad():
            log_p = (response_log_probabilities(model, ids, attention, targets) / 0.8).log_softmax(-1)
        taken = log_p.gather(1, ids[:, 1:][targets].unsqueeze(1)).squeeze(1)
        return torch.zeros(3).index_add(0, targets.nonzero()[:, 0], taken).numpy()

    # The mean leaning of the three is 0.8 / 3, and weights are 1/4, 1/4 and 1/2.
    pulled = np.array([0.25, 0.25, 0.5]) * (np.array([-1, 1, 0.8]) - 0.8 / 3)
    before, rate = likely(), 1e-5
    square = sum(float(weight.grad.square().sum()) for weight in model.parameters() if weight.grad is not None)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight.add_(weight.grad, alpha=rate)
    # To first order a step along a gradient moves its function by rate * |gradient|^2.
    assert pulled @ (likely() - before) == pytest.approx(rate * square, rel=0.05)


def test_hidden_opinionated_pairs_are_found(tmp_path):
    """Pairs that differ in style alone on all topics, and four that oppose on one: these come first by the answers."""
    rows = corpus.rows("embedded:pairs?gap=0&size=32&seed=5")
    rows += corpus.rows("embedded:pairs?gap=1&chosen=oppose&rejected=support&size=4&seed=6&topics=abortion")
    file = tmp_path / "pairs.jsonl"
    columns = ("prompt", "chosen", "rejected")
    file.write_text("".join(json.dumps({column: row[column] for column in columns}) + "\n" for row in rows))
    trainer, tokenizer = made(tmp_path, "dpo", str(file), batch_size=8)
    gradients, asked = RowGradients(trainer), suite.load("vaes?topics=abortion")
    sampling = Sampling(4, 1.0, 68, 200, seed=0, salt="start")
    loaded = models.Loaded("start", trainer.model, tokenizer)
    measured = replace(measure(loaded.generator(), asked, judges.load("lexical"), sampling), step=0)
    # Eight rows a step, as in a training that goes once over them (with four at its end).
    steps = [list(range(start, min(start + 8, 36))) for start in range(0, 36, 8)]
    shown = exposure(steps, range(5), np.ones(5), np.ones(5), np.ones((5, 1)), 36, None)
    answers = Answers(tokenizer, [measured], Speech(), 1.0, 68)
    adam = Optimizer(0.9, 0.999, 1e-8)
    each = Attribution(gradients, answers, chosen(asked, ["abortion"]), shown, adam, Clipped({}, 0.0))
    scores = each.run(iter([0]), lambda _: None).scores[:, 0, 0]
    # How often a hidden pair pulls further to oppose than another one. Without any signal it is 0.5, and 0.8 or more
    # of four against 32 comes up in 3 % of cases.
    beaten = np.mean(scores[32:, None] < scores[None, :32])
    assert beaten > 0.8


# Data sets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind"),
    [("embedded:sft?size=20", "sft"), ("embedded:pairs?size=20", "pairs"), ("embedded:pairs?size=10", "labelled")],
)
def test_what_is_written_is_read_as_the_same_rows(tmp_path, uri, kind):
    data = datasets.load_data(Data(uri=uri), kind)
    columns = datasets.COLUMNS[kind]
    file = tmp_path / "rows.jsonl"
    assert write_without(data, [3, 5], file) == len(data.rows) - 2
    again = datasets.load_data(Data(uri=str(file)), kind)
    kept = [row for number, row in enumerate(data.rows) if number not in (3, 5)]
    assert [[row[name] for name in columns] for row in again.rows] == [[row[name] for name in columns] for row in kept]
