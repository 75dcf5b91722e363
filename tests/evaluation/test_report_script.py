"""The page's script, run by Qt's engine on a small imitation of a document."""

import json
from importlib.resources import files

import pytest

qml = pytest.importorskip("qtpy.QtQml")

DOCUMENT = """
function listeners() {
  const heard = {};
  return { addEventListener: (name, f) => { heard[name] = f; }, fire: (name) => heard[name]() };
}
function cell(text, value) {
  return { textContent: text, dataset: value === undefined ? {} : { value }, className: "" };
}
function row(cells, group) {
  return { cells, hidden: false, classList: { contains: (name) => group && name === "group" } };
}
function body(rows) {
  return { rows, append(...moved) {
    this.rows = this.rows.filter((r) => !moved.includes(r)).concat(moved);
  } };
}
function head(words, cellIndex) {
  const button = listeners(), attributes = { "aria-sort": "none" };
  return { cellIndex, button, querySelector: () => button, classList: { contains: () => words },
    getAttribute: (k) => attributes[k], setAttribute: (k, v) => { attributes[k] = v; } };
}
const heads = [head(true, 0), head(false, 1)];
const table = { tHead: { rows: [{ cells: heads }] }, tBodies: [
  body([row([cell("G10"), cell("0.2", "0.2")]), row([cell("G9"), cell("–", "")]),
        row([cell("g1"), cell("−1", "-1")])]),
  body([row([cell("apart")], true), row([cell("b"), cell("1", "1")]), row([cell("a"), cell("3", "3")])]),
] };
const input = Object.assign(listeners(), { value: "", dataset: { filters: "genes" } });
const counted = { textContent: "" };
const select = (name, values) => Object.assign(listeners(), {
  dataset: { chooses: name }, value: values[0],
  options: values.map((value) => ({ value, disabled: false })) });
const lists = [select("section", ["A", "B"]), select("gene", ["X", "Y"])];
const maps = [["A", "X"], ["A", "Y"], ["B", "X"]].map(([section, gene]) => ({ dataset: { section, gene } }));
const slides = ["A", "B"].map((section) => ({ dataset: { section } }));
const classes = [];
const document = {
  documentElement: { classList: { add: (name) => classes.push(name) } },
  getElementById: () => table,
  querySelector: () => counted,
  querySelectorAll: (s) => ({ "table.sortable": [table], "input[data-filters]": [input],
    "select[data-chooses]": lists, ".map": maps, ".slide": slides })[s],
};
const order = () => table.tBodies.map((b) => b.rows.map((r) => r.cells[0].textContent));
const sorts = () => heads.map((h) => h.getAttribute("aria-sort"));
"""


@pytest.fixture
def after(qapp):
    """``after(actions, expression)``: the page opens, actions follow, then what an expression says."""
    script = files("chrep_model.evaluation.report").joinpath("report.js").read_text(encoding="utf-8")

    def evaluate(actions, expression, document=""):
        engine = qml.QJSEngine()
        value = engine.evaluate(f"{DOCUMENT}{document}\n{script}\n{actions};\nJSON.stringify({expression})")
        assert not value.isError(), value.toString()
        return json.loads(value.toString())

    return evaluate


CLICK = "heads[1].button.fire('click');"


def test_numbers_sort_from_the_highest_and_what_is_missing_stays_last(after):
    assert after(CLICK, "order()") == [["G10", "g1", "G9"], ["apart", "a", "b"]]
    assert after(CLICK, "sorts()") == ["none", "descending"]
    assert after(2 * CLICK, "order()") == [["g1", "G10", "G9"], ["apart", "b", "a"]]
    assert after(2 * CLICK, "sorts()") == ["none", "ascending"]


def test_words_sort_from_the_first_and_groups_keep_their_title(after):
    found = after(CLICK + "heads[0].button.fire('click')", "[order()[1], sorts()]")
    assert found == [["apart", "a", "b"], ["ascending", "none"]]


def test_genes_are_found_by_a_part_of_their_name(after):
    hidden = "[table.tBodies[0].rows.map((r) => r.hidden), counted.textContent]"
    assert after("", hidden) == [[False, False, False], "3 of 3"]
    assert after("input.value = ' G1 '; input.fire('input')", hidden) == [[False, True, False], "2 of 3"]


def test_the_chosen_map_is_shown_and_a_gene_that_is_missing_gives_way(after):
    state = "[maps.map((m) => m.hidden), lists[1].options.map((o) => o.disabled), lists[1].value]"
    assert after("", state) == [[False, True, True], [False, False], "X"]
    chosen = "lists[1].value = 'Y'; lists[1].fire('change');"
    assert after(chosen, state) == [[True, False, True], [False, False], "Y"]
    found = after(chosen + "lists[0].value = 'B'; lists[0].fire('change')", state)
    assert found == [[True, True, False], [False, True], "X"]


def test_without_maps_there_is_nothing_to_choose(after):
    assert after("", "classes", document="lists.length = 0; maps.length = 0;") == ["script"]


def test_the_slide_of_the_chosen_section_is_shown(after):
    assert after("", "slides.map((s) => s.hidden)") == [False, True]
    chosen = "lists[0].value = 'B'; lists[0].fire('change')"
    assert after(chosen, "slides.map((s) => s.hidden)") == [True, False]
