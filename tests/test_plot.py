"""nbflow.plot: what draws one thing, on light and dark pages; heads with room for their words; files that are whole."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
import matplotlib.style
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from tolerance import near

import nbflow as nf
from nbflow import plot, statistics
from nbflow.records import Interval

# The contrast that words need at least, by WCAG 2.2 (1.4.3).
READABLE = 4.5


def test_neither_nbflow_nor_a_sweep_loads_what_draws_pictures_and_tables() -> None:
    script = """
import sys, nbflow as nf
from nbflow import plot, statistics
nf.sweep, nf.train, plot.page, statistics.mean_interval
print([name for name in ("matplotlib", "rich", "tyro") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.page("A title", "", (4.0, 3.0)).__enter__(),
        lambda: plot.theme("dark").__enter__(),
        lambda: plot.cliff(np.arange(3.0), np.arange(2.0), np.ones((2, 3))),
        lambda: plot.delta_map(nf.Trace(0.0, *np.ones((2, 3, 2, 1, 4)), np.ones((3, 2)), np.ones((2, 2)))),
        lambda: plot.clip_report(nf.Clipped(np.ones(3), 1.0, 1.0, 0.0, 1.0, True)),
    ],
    ids=["page", "theme", "cliff", "delta_map", "clip_report"],
)
def test_without_matplotlib_what_draws_says_what_to_install(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"matplotlib, which is not installed.*pip install 'nbflow\[plot\]'"):
        draw()


@pytest.mark.parametrize("words", ["one line", "one\ntwo", "one\ntwo\nthree", "a word too many " * 20])
def test_a_head_has_room_for_its_lines_and_none_leaves_the_page(words: str) -> None:
    with plot.page("A title", words, (6.0, 3.0)) as figure:
        axes = figure.subplots()
    figure.draw_without_rendering()
    said = figure.texts[1].get_window_extent()
    page = figure.bbox
    assert said.x0 >= page.x0
    assert said.x1 <= page.x1
    assert axes.get_window_extent().y1 <= said.y0, "what is drawn begins below the words"
    assert figure.get_size_inches()[0] == 6.0
    below = figure.get_size_inches()[1] * (1 - figure.get_layout_engine().get()["rect"][3])
    assert figure.get_size_inches()[1] - below == near(3.0), "the size is that of what is below the head"


def test_no_title_and_no_words_leave_no_head() -> None:
    with plot.page("", "", (4.0, 3.0)) as figure:
        pass
    assert figure.get_size_inches().tolist() == [4.0, 3.0]


@pytest.mark.parametrize("across", [False, True])
def test_intervals_are_drawn_from_end_to_end_and_where_there_is_none_there_is_no_bar(across: bool) -> None:
    found = [Interval(2.0, 1.0, 5.0), Interval(3.0, np.nan, np.nan)]
    axes = plot.intervals([10, 20], found, across=across)
    points, _, (bars,) = axes.containers[0]
    seen = np.array(points.get_data())[::-1] if across else np.array(points.get_data())
    assert seen.tolist() == [[10, 20], [2.0, 3.0]]
    ends = [part[:, 0 if across else 1].tolist() for part in bars.get_segments()]
    assert ends == [[1.0, 5.0], [3.0, 3.0]]


def test_what_takes_axes_draws_there_and_what_gets_none_makes_a_page() -> None:
    with plot.page("A title", "", (4.0, 3.0)) as figure:
        axes = figure.subplots()
    values = [[1.0, 2.0, np.nan], [4.0, np.inf, 8.0]]
    assert plot.replicas([1, 2], values, ax=axes) is axes
    assert plot.intervals([1], [Interval(1.0, 0.0, 2.0)], ax=axes) is axes
    assert len(axes.lines[:4]) == 4, "three replicas and their median"
    assert np.array(axes.lines[3].get_ydata()).tolist() == [1.5, 6.0]
    assert plot.replicas([1, 2], values).figure is not figure


def test_a_picture_that_cannot_be_drawn_leaves_the_one_before(tmp_path: Path) -> None:
    class Broken:
        def savefig(self, path: Any) -> None:
            Path(path).write_bytes(b"half")
            raise ValueError("no room")

    with plot.page("A title", "", (4.0, 3.0)) as figure:
        figure.subplots()
    target = plot.save(figure, tmp_path / "new" / "one.png")
    before = target.read_bytes()
    assert before.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no room"):
        plot.save(Broken(), target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["one.png"]


# What draws one thing. Everything that is drawn is made once, small.


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the functions are given, by their names: arguments that each is called with."""
    task = nf.load_task("temporal_order")
    net = nf.Network(cell="lstm", n_in=task.n_in, n_hidden=8, n_out=task.n_out)
    theta = nf.init(net, "glorot", rng=0)
    batch = task.sample(seed=0, index=0, batch_size=6, length=20)
    recipe = nf.Recipe(lengths=10, max_updates=60, evaluate_every=20, evaluate_size=50, record_every=20,
                       clip=nf.Clip("norm", 0.5))  # fmt: skip
    run = nf.train(net, nf.init(net, "glorot", rng=0, replicas=3), task, recipe)
    run.history["gain"] = [[0.9, 1.0, 1.1]] * len(run.history["update"])
    d_theta = nf.gradient(net, theta, batch).d_theta
    ways = {"norm": nf.Clip("norm", 0.01), "value": nf.Clip("value", 1e-3), "none": nf.Clip("norm", np.inf)}
    bias = nf.clipping_bias(net, theta, task, ways, length=10, batch_size=4, count=12, resamples=50, rng=0)
    times = statistics.passages([1000, 2000, 2500, None, 4000, None], 5000)
    runs = [
        {"recipe.lr": lr, "init": init, "failure": None, "first_passage": 9 if lr * seed > 0.02 else None, "score": lr}
        for lr in (0.003, 0.01, 0.03, 0.1) for init in ("basic_tanh", "smart_tanh", "orthogonal") for seed in range(3)
    ]  # fmt: skip
    w, b = np.linspace(4.0, 6.2, 40), np.linspace(-2.9, 0.6, 30)
    return {
        "gradient_by_lag": (nf.gains_by_lag(net, theta, batch),),
        "gain_histogram": (nf.trace(net, theta, batch),),
        "delta_map": (nf.trace(net, theta, batch),),
        "spectrum": (nf.jacobian_singular_values(net, theta, batch.inputs, k=5), "singular"),
        "eigenvalues": (net, theta),
        "saturation": (nf.saturation(net, theta, batch, margin=0.4),),
        "learning_curve": (run, "norm"),
        "clip_report": ({name: nf.clip(net, d_theta, how) for name, how in ways.items()},),
        "clipping_bias": (bias,),
        "survival": (statistics.survival(times),),
        "success": ([10, 20, 40], [6, 4, 0], 6),
        "sweep_heatmap": (runs, "recipe.lr", "init"),
        "cliff": (w, b, (w - 5) ** 2 / 4 + (b[:, None] + 1) ** 2 / 8,
                  {"plain": [(4.7, -1.9), (5.8, 0.2), (5.2, -0.8)], "clipped": [(4.7, -1.9), (4.9, -1.5)]}),
    }  # fmt: skip


DRAWN = ("gradient_by_lag", "gain_histogram", "delta_map", "spectrum", "eigenvalues", "saturation", "learning_curve",
         "clip_report", "clipping_bias", "survival", "success", "sweep_heatmap", "cliff")  # fmt: skip


def luminance(colour: Any) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(colour)[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], parts))


def contrast(one: Any, other: Any) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def words_of(figure: Any) -> list[Any]:
    """Return the words that stand on the page itself: all but those on a coloured field."""
    maps = [mesh.axes for mesh in figure.findobj(QuadMesh)]
    return [
        text for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and not (text.axes in maps and text in text.axes.texts)
    ]  # fmt: skip


def test_axes_of_survival_begin_at_0_and_hold_the_longest_curve_whichever_comes_first() -> None:
    curves = [statistics.survival(statistics.passages([10, 20, None], last)) for last in (100, 4000)]
    for some in (curves, curves[::-1]):
        with plot.page("", "", (4, 3)) as figure:
            axes = figure.subplots()
        for one in some:
            plot.survival(one, ax=axes)
        low, high = axes.get_xlim()
        assert low == 0
        assert 4000 < high < 4400


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", DRAWN)
def test_what_draws_one_thing_draws_on_its_axes_alone_with_labels_that_can_be_read(
    name: str, theme: str, seen: dict[str, Any], tmp_path: Path
) -> None:
    with plot.theme(theme), plot.page("", "", (9.0, 3.4)) as figure:
        other, axes = figure.subplots(1, 2)
        before = len(other.get_children())
        assert getattr(plot, name)(*seen[name], ax=axes) is axes
    assert len(other.get_children()) == before
    assert not other.get_xlabel()
    assert axes.has_data()
    assert axes.get_xlabel()
    # A row for each name needs no label.
    assert axes.get_ylabel() or name in ("clip_report", "clipping_bias")
    figure.savefig(tmp_path / "drawn.png")
    page = figure.get_facecolor()
    assert (luminance(page) > 0.5) == (theme == "light")
    assert min(contrast(text.get_color(), page) for text in words_of(figure)) >= READABLE


@pytest.mark.parametrize("style", ["default", "dark_background", "ggplot"])
@pytest.mark.parametrize("name", DRAWN)
def test_axes_of_anybodys_style_get_words_and_lines_that_are_seen(name: str, style: str, seen: dict[str, Any]) -> None:
    with matplotlib.style.context(style):
        axes = Figure().subplots()
        drawn = getattr(plot, name)(*seen[name], ax=axes)
        axes.figure.draw_without_rendering()
    inks = plot.inks(drawn)
    assert contrast(inks.faint, inks.page) >= 3
    assert contrast(inks.ink, inks.page) > contrast(inks.faint, inks.page) > contrast(inks.grid, inks.page) > 1


@pytest.mark.parametrize("name", DRAWN)
def test_without_axes_there_is_a_page_of_its_own(name: str, seen: dict[str, Any]) -> None:
    one, two = (getattr(plot, name)(*seen[name]) for _ in range(2))
    assert one.figure is not two.figure


def test_every_function_that_draws_one_thing_is_tried_here() -> None:
    takes = {
        name for name in vars(plot)
        if inspect.isfunction(getattr(plot, name)) and "ax" in inspect.signature(getattr(plot, name)).parameters
    }  # fmt: skip
    helpers = {"grid", "reference", "inks", "legend_below", "legend_beside", "intervals", "replicas"}
    assert takes - helpers - {"diagnosis"} == set(DRAWN)


def test_a_profile_by_lag_is_drawn_as_it_is_and_relative_to_its_first(seen: dict[str, Any]) -> None:
    (profile,) = seen["gradient_by_lag"]
    line = plot.gradient_by_lag(profile).lines[0]
    assert np.array_equal(line.get_ydata(), profile.delta_norm.mean)
    line = plot.gradient_by_lag(profile, relative=True).lines[0]
    assert line.get_ydata()[0] == 1.0
    assert line.get_ydata()[5] == near(profile.delta_norm.mean[5] / profile.delta_norm.mean[0])


def test_a_histogram_of_gains_counts_every_finite_one_once(seen: dict[str, Any]) -> None:
    (trace,) = seen["gain_histogram"]
    heights = plot.gain_histogram(trace).patches[0].get_data().values
    assert heights.sum() == near(100.0)
    fewer = plot.gain_histogram([1.0, 2.0, 0.0, np.nan, np.inf], bins=4).patches[0].get_data()
    assert fewer.values.tolist() == [50.0, 0.0, 0.0, 50.0]
    assert fewer.edges[[0, -1]].tolist() == [near(1.0), near(2.0)]


def test_networks_by_lag_are_thin_lines_and_their_geometric_mean_a_thick_one(seen: dict[str, Any]) -> None:
    (profile,) = seen["gradient_by_lag"]
    rows = np.array([[1.0, 0.5, 0.125], [4.0, 8.0, 2.0]])
    thin_1, thin_2, thick = plot.gradient_by_lag(rows, label="two").lines
    assert thick.get_ydata() == near(np.sqrt(rows[0] * rows[1]))
    assert thick.get_linewidth() > thin_1.get_linewidth()
    assert thick.get_label() == "two"
    assert np.array_equal([thin_1.get_ydata(), thin_2.get_ydata()], rows)
    relative = plot.gradient_by_lag(rows, relative=True).lines
    assert np.array_equal(relative[1].get_ydata(), [1.0, 2.0, 0.5])
    assert relative[2].get_ydata()[0] == near(1.0)
    # What nbflow.gains_by_lag returns of several networks is drawn in the same way; an array of one is a line alone.
    several = profile._replace(delta_norm=nf.SequenceMean(rows, rows, rows, rows))
    assert np.array_equal(plot.gradient_by_lag(several).lines[2].get_ydata(), thick.get_ydata())
    one = plot.gradient_by_lag(rows[0])
    assert (len(one.lines), len(one.collections)) == (1, 0)


def test_gains_that_were_counted_before_give_the_stairs_of_the_gains_themselves() -> None:
    gains, edges = np.array([0.5, 0.6, 0.6, 1.5, 3.0]), np.array([0.25, 0.55, 1.0, 2.0])
    found = plot.gain_histogram(gains, bins=edges).patches[0].get_data()
    assert found.values == near(np.array([20.0, 40.0, 20.0]))  # what lies beyond the edges is a part of all steps
    assert found.edges == near(edges)
    counted = plot.gain_histogram([0.5, 0.6, 1.5, 3.0], weights=[1, 2, 1, 1], bins=edges).patches[0].get_data()
    assert np.array_equal(counted.values, found.values)
    for bins in ([1.0], [2.0, 1.0], [0.0, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match=r"bins is .*; expected a number of bins, or their edges, above 0"):
            plot.gain_histogram(gains, bins=bins)
    for weights in ([1, 2], [1, 1, 1, 1, -1], [1, 1, 1, 1, np.nan]):
        with pytest.raises(ValueError, match=r"weights is .*; expected 5 numbers of at least 0, one for each gain"):
            plot.gain_histogram(gains, weights=weights)


@pytest.mark.parametrize("span", [1.3, 3.0, 10.0, 100.0, 1e4, 1e8])
def test_a_logarithmic_axis_has_a_few_plain_numbers_whatever_it_spans(span: float) -> None:
    with plot.page("", "", (6.0, 4.0)) as figure:
        axes = figure.subplots()
        axes.plot([1, 2], [7.0, 7.0 * span])
        axes.set_yscale("log")
        plot.plain_log(axes.yaxis)
        figure.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.yaxis.get_ticklabels() if low <= tick.get_position()[1] <= high]
    assert 2 <= len(shown) <= 10
    assert all(float(tick.get_text().replace(",", "")) == near(tick.get_position()[1]) for tick in shown)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_shades_go_ever_farther_from_the_page_light_or_dark(theme: str) -> None:
    with plot.theme(theme), plot.page("", "", (3.0, 3.0)) as figure:
        far = [contrast(colour, figure.get_facecolor()) for colour in plot.shades(5)]
    assert far == sorted(far)
    assert far[-1] >= 3


def test_a_map_of_delta_leaves_out_what_is_zero_and_shows_every_unit_of_a_sequence(seen: dict[str, Any]) -> None:
    (trace,) = seen["delta_map"]
    delta = trace.delta.copy()
    delta[3, 2, 1, 4] = 0.0
    shown = plot.delta_map(trace._replace(delta=delta), sequence=2, state=1).collections[0].get_array()
    assert np.ma.getmaskarray(shown)[4, 3]
    assert np.ma.getmaskarray(shown).sum() == (delta[:, 2, 1] == 0).sum()
    assert np.array_equal(shown[:, 5].filled(0), np.abs(delta[5, 2, 1].astype(float)))


def test_where_all_of_a_map_is_alike_or_nothing_it_is_drawn_too(seen: dict[str, Any]) -> None:
    (trace,) = seen["delta_map"]
    for value in (0.0, 1.0):
        axes = plot.delta_map(trace._replace(delta_norm=np.full_like(trace.delta_norm, value)))
        axes.figure.draw_without_rendering()


def test_eigenvalues_of_a_scaled_orthogonal_matrix_lie_on_a_circle() -> None:
    net = nf.Network(cell="gru", n_in=2, n_hidden=10, n_out=2, dtype="float64")
    theta = nf.init(net, "orthogonal", rng=0)
    axes = plot.eigenvalues(net, theta, gate="n")
    x, y = axes.lines[0].get_data()
    w_rec = nf.unpack(net, theta).w_rec[:, 2]
    assert sorted(np.hypot(x, y)) == near(sorted(abs(np.linalg.eigvals(w_rec))))
    assert axes.get_legend_handles_labels()[1] == ["n"]


def test_a_point_of_saturation_has_both_parts_of_a_unit_in_percent(seen: dict[str, Any]) -> None:
    (found,) = seen["saturation"]
    line = plot.saturation(found).lines[1]
    assert np.array_equal(line.get_xdata(), 100 * found.high[1])
    assert np.array_equal(line.get_ydata(), 100 * found.low[1])


@pytest.mark.parametrize("quantity", ["score", "loss", "norm", "gain"])
def test_a_learning_curve_shows_the_median_of_the_replicas_of_a_run_or_of_a_stored_line(
    quantity: str, seen: dict[str, Any]
) -> None:
    run, _ = seen["learning_curve"]
    values = (run.evaluations if quantity == "score" else run.history)[quantity]
    for one in (run, run.as_dict()):
        axes = plot.learning_curve(one, quantity, label="a training")
        assert np.array_equal(axes.lines[3].get_ydata(), np.median(np.array(values, float), axis=1))
        assert axes.get_legend_handles_labels()[1] == ["a training"]
    if quantity == "norm":
        assert np.array_equal(axes.lines[4].get_ydata(), np.median(np.array(run.history["clipped_norm"]), axis=1))
        assert axes.lines[5].get_ydata()[0] == near(0.5)


def test_trainings_side_by_side_are_drawn_as_replicas_or_as_their_mean_with_a_band(seen: dict[str, Any]) -> None:
    table = {"epoch": [1, 2, 4], "valid": [3.0, 2.0, 1.5], "loss": [3.0, 2.0, 1.0]}
    other = {"epoch": [1, 2, 4], "valid": [5.0, np.nan, 2.5], "loss": [1.0, 2.0, 3.0]}
    axes = plot.learning_curve([table, other], "valid", over="epoch", unit="nats per frame", marker="s", label="both")
    assert np.array_equal(axes.lines[2].get_ydata(), [4.0, 2.0, 2.0])
    assert (axes.lines[2].get_marker(), axes.lines[2].get_label()) == ("s", "both")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "valid (nats per frame)", "linear")
    axes = plot.learning_curve([table, other], "loss", over="epoch", interval=0.9)
    wanted = statistics.mean_interval([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]], confidence=0.9)
    assert np.array_equal(axes.lines[0].get_ydata(), wanted.mean)
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (near(wanted.low.min()), near(wanted.high.max()))
    run, _ = seen["learning_curve"]
    twice = plot.learning_curve([run, run.as_dict()], "norm")
    assert np.array_equal(twice.lines[6].get_ydata(), plot.learning_curve(run, "norm").lines[3].get_ydata())
    assert len(twice.lines) == 9, "six replicas, their median, what is left after the clip, the threshold"
    with pytest.raises(ValueError, match="were not seen at the same 'epoch'"):
        plot.learning_curve([table, {"epoch": [1, 2, 3], "valid": [1.0, 1.0, 1.0]}], "valid", over="epoch")
    with pytest.raises(ValueError, match="run has 4 entries of 'valid' and 2 of 'epoch'; expected as many"):
        plot.learning_curve({"epoch": [1, 2], "valid": [1.0, 1.0, 2.0, 2.0]}, "valid", over="epoch")
    with pytest.raises(ValueError, match="run is empty; expected one training"):
        plot.learning_curve([])


def test_a_triangle_stands_where_a_learning_curve_is_below_its_axis_and_steps_hold_until_the_next() -> None:
    table = {"update": [0, 1, 2, 3], "loss": [1.0, 1e-7, 0.1, 0.0], "lr": [1.0, 1.0, 0.5, 0.5]}
    axes = plot.learning_curve(table, "loss", bottom=1e-3, label="one")
    triangles = axes.lines[-1]
    assert triangles.get_marker() == "v"
    assert triangles.get_xdata().tolist() == [1.0, 3.0]
    assert axes.get_ylim()[0] == near(1e-3)
    plot.learning_curve({"update": [0, 1], "loss": [50.0, 40.0]}, "loss", bottom=1e-3, ax=axes)
    assert axes.get_ylim()[1] > 50, "what is drawn later is not cut"
    assert axes.get_legend_handles_labels()[1] == ["one"]
    assert plot.learning_curve(table, "lr", step=True).lines[1].get_drawstyle() == "steps-mid"


def test_a_table_without_rows_takes_no_label_from_what_is_there() -> None:
    axes = plot.learning_curve({"update": [0, 1], "loss": [1.0, 2.0]}, "loss", label="first")
    plot.learning_curve({"update": [], "loss": []}, "loss", label="nothing", ax=axes)
    assert axes.get_legend_handles_labels()[1] == ["first"]


@pytest.mark.parametrize("across", [False, True])
def test_what_an_estimate_is_of_stands_beside_it_as_dots(across: bool) -> None:
    runs = [[1.0, 2.0, 3.0], [4.0]]
    axes = plot.intervals(
        [10, 20], [Interval(2.0, 1.0, 3.0), Interval(4.0, 4.0, 4.0)], of=runs, beside=0.5, across=across
    )
    for line, place, values in zip(axes.lines, (10.5, 20.5), runs, strict=False):
        where, what = line.get_data()[::-1] if across else line.get_data()
        assert np.array_equal(where, [place] * len(values))
        assert np.array_equal(what, values)
    with pytest.raises(ValueError, match="of has 1 parts, and there are 2 places; expected as many"):
        plot.intervals([10, 20], [Interval(2.0, 1.0, 3.0)] * 2, of=runs[:1])


def test_a_reference_is_a_line_or_a_band_with_a_label_of_its_own() -> None:
    axes = plot.intervals([1], [Interval(1.0, 0.0, 2.0)])
    plot.reference(axes, y=3.5, label="a line", linestyle=":")
    plot.reference(axes, x=(1.0, 2.0), label="a band")
    line, band = axes.lines[-1], axes.patches[-1]
    assert (line.get_linestyle(), line.get_ydata()[0]) == (":", 3.5)
    assert (band.get_x(), band.get_width()) == (near(1.0), near(1.0))
    assert sorted(axes.get_legend_handles_labels()[1]) == ["a band", "a line"]


def test_a_report_of_clips_has_a_row_for_each_and_for_each_replica() -> None:
    net = nf.Network(cell="tanh", n_in=1, n_hidden=2, n_out=1)
    rows = np.ones((2, net.size), np.float32)
    rows[1] = np.nan
    axes = plot.clip_report({"norm": nf.clip(net, rows, nf.Clip("norm", 1.0, nonfinite="keep"))})
    assert [words.get_text() for words in axes.get_yticklabels()] == ["norm 0", "norm 1"]
    assert [words.get_text() for words in axes.texts] == [" cosine 1.000, 100 % of entries", " was not finite"]
    before, after = (line.get_xdata()[0] for line in axes.lines[1:3])
    assert (before, after) == (near(np.sqrt(net.size), "float32"), near(1.0, "float32"))


def test_a_bias_below_the_axis_is_written_and_a_way_that_is_not_there_leaves_its_row_empty(
    seen: dict[str, Any],
) -> None:
    (bias,) = seen["clipping_bias"]
    known = bias.rules["norm"]._replace(cosine=Interval(0.5, 0.4, 0.6))
    noise = bias.rules["value"]._replace(cosine=Interval(np.nan, np.nan, np.nan))
    bias = bias._replace(rules={"norm": known, "value": noise})
    axes = plot.clipping_bias(bias, "cosine", names=["value", "not there", "norm"], least=0.6)
    assert [text.get_text() for text in axes.texts] == ["nothing but noise", "◄ 0.50 (0.40 to 0.60)"]
    assert [text.get_position()[1] for text in axes.texts] == [0, 2]
    assert not axes.containers
    points = [container[0].get_data()[0][0] for container in plot.clipping_bias(bias).containers]
    assert points == [0.5]


def test_a_heat_map_has_the_median_or_the_part_solved_of_each_pair_and_gaps_where_there_is_none() -> None:
    runs = [
        {"a": 1.0, "b": "x", "score": 3.0, "first_passage": 10},
        {"a": 1.0, "b": "x", "score": 5.0, "first_passage": None},
        {"a": 0.5, "b": "y", "failure": "it diverged"},
    ]
    shown = plot.sweep_heatmap(runs, "a", "b").collections[0].get_array()
    assert shown.filled(-1).tolist() == [[-1.0, 50.0], [0.0, -1.0]]
    shown = plot.sweep_heatmap(runs, "a", "b", "score").collections[0].get_array()
    assert shown.filled(-1).tolist() == [[-1.0, 4.0], [-1.0, -1.0]]


@pytest.mark.parametrize(
    ("name", "arguments", "error", "said"),
    [
        ("gradient_by_lag", ("lags",), TypeError, "seen is 'lags'; expected an nbflow.LagProfile, or sizes by lag"),
        ("gradient_by_lag", (1.0,), ValueError, r"seen has shape \(\); expected \(T\+1,\), or \(R, T\+1\)"),
        ("gain_histogram", ("gains",), TypeError, "seen is 'gains'; expected gains. Draw what nbflow.trace"),
        ("gain_histogram", ([0.0, np.nan],), ValueError, "expected one. Look at its delta_norm"),
        ("delta_map", (None,), TypeError, "seen is None; expected an nbflow.Trace"),
        ("spectrum", (None, "singular"), TypeError, "expected an nbflow.Spectrum"),
        ("saturation", (None,), TypeError, "expected an nbflow.Saturation"),
        ("learning_curve", (None,), TypeError, "run is None; expected an nbflow.Run"),
        ("learning_curve", ({"epoch": [1]}, "error"), TypeError, "or a table with a column 'update'"),
        ("learning_curve", (nf.Run(np.zeros(1)), "gain"), ValueError, "run.history has nothing; expected 'update'"),
        ("clip_report", ({"norm": 1.0},), TypeError, "expected an nbflow.Clipped"),
        ("clipping_bias", (None,), TypeError, "expected an nbflow.ClippingBias"),
        ("survival", (None,), TypeError, "expected an nbflow.statistics.Survival"),
        ("success", ([1, 2], [1], 2), ValueError, "have 2, 1 and 2 numbers; expected as many of each"),
        ("sweep_heatmap", ([], "a", "b"), ValueError, "runs have no column 'a'"),
        ("cliff", ([0, 1], [0, 1], [[1.0]]), ValueError, r"expected \(m,\), \(n,\) and \(n, m\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_plainly(name: str, arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        getattr(plot, name)(*arguments)


def test_what_has_replicas_is_refused_with_a_way_out(seen: dict[str, Any]) -> None:
    (trace,) = seen["delta_map"]
    with pytest.raises(
        ValueError, match=r"seen.delta has shape .* expected 4: those of one network. Compute it of one"
    ):
        plot.delta_map(trace._replace(delta=trace.delta[None]))
    with pytest.raises(ValueError, match="sequence is 6; expected less than 6"):
        plot.delta_map(trace, sequence=6)


def test_a_theme_ends_where_it_began_and_one_that_there_is_not_is_refused() -> None:
    with plot.theme("dark"), plot.theme("light"):
        assert plot.inks(Figure().subplots()).page == "#ffffff"
    with pytest.raises(ValueError, match="name is 'dim'; expected one of light, dark"), plot.theme("dim"):
        pass
    with plot.page("", "", (3.0, 3.0)) as figure:
        assert plot.inks(figure.subplots()) == plot.Inks("#ffffff", "#222222", "#666666", "#dddddd")
