// The browser of rollouts and the search trees. What is chosen and in which order are functions without a
// page, which node can test; the rest draws. Text of rollouts is only ever set as textContent.
'use strict';

const RIGHT = 0.5;

const lowest = rollout => Math.min(...rollout.scores);

const hasScores = rollout => Array.isArray(rollout.scores) && rollout.scores.length > 0
  && rollout.scores.every(score => score !== null);

/** Pairs of a step's score and truth, of the steps that have both. */
const judged = rollout => !rollout.scores || !rollout.truths ? []
  : rollout.scores.map((score, at) => [score, rollout.truths[at]])
    .filter(([score, truth]) => score !== null && typeof truth === 'boolean');

/** Whether PRM and truth (of a step) or outcome disagree in the way that `kind` names. */
function disagrees(rollout, kind, threshold) {
  if (kind === 'step') return disagrees(rollout, 'step_high', threshold) || disagrees(rollout, 'step_low', threshold);
  if (kind === 'outcome')
    return disagrees(rollout, 'outcome_high', threshold) || disagrees(rollout, 'outcome_low', threshold);
  if (kind === 'step_high') return judged(rollout).some(([score, truth]) => !truth && score >= threshold);
  if (kind === 'step_low') return judged(rollout).some(([score, truth]) => truth && score < threshold);
  if (!hasScores(rollout) || rollout.outcome === undefined) return false;
  const right = rollout.outcome >= RIGHT, high = lowest(rollout) >= threshold;
  return kind === 'outcome_high' ? !right && high : right && !high;
}

/** Whether a rollout passes all filters; an empty one lets all pass. */
function matches(data, rollout, wanted) {
  const { source, outcome, disagreement, problem, shortest, longest } = wanted;
  if (source === 'iteration' || source === 'samples') {
    if (data.kinds[rollout.source] !== source) return false;
  } else if (source && rollout.source !== Number(source)) return false;
  if (outcome === 'none' && rollout.outcome !== undefined) return false;
  if (outcome === 'right' && !(rollout.outcome >= RIGHT)) return false;
  if (outcome === 'wrong' && !(rollout.outcome < RIGHT)) return false;
  if (shortest && rollout.tokens < Number(shortest)) return false;
  if (longest && rollout.tokens > Number(longest)) return false;
  if (problem) {
    const text = problem.toLowerCase();
    // An identifier in quotes is meant whole: a/1 is not a/10.
    if (text.startsWith('"')) {
      if (text !== `"${rollout.problem}"`.toLowerCase()) return false;
    } else if (!data.prompts[rollout.prompt].toLowerCase().includes(text)
      && !String(rollout.problem).toLowerCase().includes(text)) return false;
  }
  return !disagreement || disagrees(rollout, disagreement, Number(wanted.threshold));
}

const sum = values => values.reduce((all, value) => all + (value === null ? 0 : value), 0);

/** What a rollout is sorted by, largest first; null comes last. */
function rank(data, rollout, sort) {
  const scored = hasScores(rollout);
  if (sort === 'latest') return data.kinds[rollout.source] === 'iteration' ? rollout.source : null;
  if (sort === 'trace_high') return rollout.trace ?? null;
  if (sort === 'trace_low') return rollout.trace === undefined ? null : -rollout.trace;
  if (sort === 'step_gap') {
    const gaps = judged(rollout).map(([score, truth]) => Math.abs(score - Number(truth)));
    return gaps.length ? Math.max(...gaps) : null;
  }
  if (sort === 'outcome_gap')
    return scored && rollout.outcome !== undefined ? Math.abs(lowest(rollout) - rollout.outcome) : null;
  if (sort === 'long') return rollout.tokens;
  if (sort === 'short') return -rollout.tokens;
  if (sort === 'likely') return rollout.logs ? sum(rollout.logs) : null;
  if (sort === 'unlikely') return rollout.logs ? -sum(rollout.logs) : null;
  if (sort && sort.startsWith('reward_')) return rollout.rewards?.[Number(sort.slice(7))] ?? null;
  return 0;
}

/** Positions of the rollouts that pass, in order; equal ones as they are stored. */
function choose(data, wanted) {
  const found = [];
  data.rollouts.forEach((rollout, at) => {
    if (matches(data, rollout, wanted)) found.push([at, rank(data, rollout, wanted.sort)]);
  });
  found.sort(([a, x], [b, y]) => x === y ? a - b : x === null ? 1 : y === null ? -1 : y - x);
  return found.map(([at]) => at);
}

/** Rows of a tree from the root on, depth first; only where it branches are rows set in further. */
function treeRows(nodes, chosen) {
  const below = nodes.map(() => []);
  nodes.forEach((node, at) => { if (node.parent >= 0) below[node.parent].push(at); });
  const path = new Set();
  const last = nodes.findIndex(node => node.leaf !== undefined && node.leaf === chosen);
  for (let at = last; at >= 0; at = nodes[at].parent) path.add(at);
  const rows = [], open = [[0, 0, 0]];
  while (open.length) {
    const [at, depth, inset] = open.pop();
    if (at) rows.push({ at, depth, inset, chosen: path.has(at) });
    const further = inset + (below[at].length > 1 ? 1 : 0);
    for (const child of [...below[at]].reverse()) open.push([child, depth + 1, further]);
  }
  return rows;
}

const colourOf = score => score === null || score === undefined ? ''
  : `color-mix(in srgb,var(${score >= 0.5 ? '--high' : '--low'}) `
    + `${Math.round(100 * Math.min(1, 2 * Math.abs(score - 0.5)))}%,transparent)`;

const figure = (value, places) => value === null || value === undefined ? '' : value.toFixed(places);

const MARKS = new Map([[true, ['✓', 'right', 'is right']], [false, ['✗', 'wrong', 'is wrong']]]);
const markOf = truth => MARKS.get(truth) ?? ['·', 'unknown', 'unknown'];

/** All that is known of a step, in words. */
function said(name, step) {
  const parts = [step.score === null || step.score === undefined ? 'no PRM score'
    : `PRM score ${figure(step.score, 3)}`];
  if (typeof step.log === 'number') parts.push(`log-probability ${figure(step.log, 2)} nats`);
  if (typeof step.paid === 'number') parts.push(`reward ${figure(step.paid, 3)}`);
  return `${name}: ${parts.join(', ')}, truth: ${markOf(step.truth)[2]}`;
}

function verdict(outcome) {
  if (outcome === undefined || outcome === null) return ['not graded', 'unknown'];
  if (outcome === 1) return ['✓ right answer', 'right'];
  if (outcome === 0) return ['✗ wrong answer', 'wrong'];
  return [`outcome ${figure(outcome, 2)}`, outcome >= RIGHT ? 'right' : 'wrong'];
}

if (typeof module !== 'undefined') module.exports = { choose, treeRows, said, colourOf, verdict };

function drawBrowser(root) {
  const data = JSON.parse(root.querySelector('script').textContent);
  const form = root.querySelector('form'), cards = root.querySelector('.cards');
  const turns = [...root.querySelectorAll('[data-turn]')];
  let found = [], page = 0;

  function refresh() {
    found = choose(data, Object.fromEntries([...form.elements].filter(one => one.name)
      .map(one => [one.name, one.value])));
    page = 0;
    show();
  }
  function show() {
    const size = Number(form.elements.size.value), pages = Math.max(1, Math.ceil(found.length / size));
    const first = page * size, some = found.slice(first, first + size);
    root.querySelector('.count').textContent = found.length
      ? `${first + 1} to ${first + some.length} of ${found.length} rollouts` : 'No rollout is so: loosen a filter.';
    for (const turn of turns) {
      const to = page + Number(turn.dataset.turn);
      turn.disabled = to < 0 || to >= pages;
    }
    cards.replaceChildren(...some.map(at => card(data.rollouts[at])));
  }
  function card(rollout) {
    const node = document.createElement('article');
    const head = add(node, 'header');
    const [words, kind] = verdict(rollout.outcome);
    add(head, 'span', kind, words);
    const more = data.kinds[rollout.source] === 'iteration' && rollout.version !== undefined
      ? `${data.sources[rollout.source]}, policy version ${rollout.version}` : data.sources[rollout.source];
    add(head, 'span', 'policy', more);
    add(node, 'pre', 'prompt', data.prompts[rollout.prompt]).tabIndex = 0;
    node.append(steps(rollout));
    const facts = [];
    if (rollout.answer !== undefined) facts.push(['answer', rollout.answer]);
    if (rollout.status !== undefined && rollout.status !== 'graded') facts.push(['verdict', rollout.status]);
    if (rollout.trace !== undefined) facts.push(['trace score', figure(rollout.trace, 3)]);
    if (rollout.logs) facts.push(['log-probability', figure(sum(rollout.logs), 2)]);
    data.rewards.forEach((name, at) => {
      const value = rollout.rewards?.[at];
      if (typeof value === 'number') facts.push([name, figure(value, 3)]);
    });
    facts.push(['tokens', `${rollout.tokens}${rollout.finish === 'length' ? ' (cut at the limit)' : ''}`]);
    const line = add(node, 'p', 'answer');
    facts.forEach(([name, value], at) => {
      line.append(`${at ? ' · ' : ''}${name} `);
      add(line, 'code', '', value);
    });
    const same = add(node, 'button', 'same', 'rollouts of this problem');
    same.type = 'button';
    same.addEventListener('click', () => {
      form.reset();
      form.elements.problem.value = `"${rollout.problem}"`;
      refresh();
      form.elements.problem.focus();
    });
    return node;
  }
  function steps(rollout) {
    const list = document.createElement('ol');
    list.className = 'steps';
    rollout.steps.forEach((text, at) => {
      const step = { score: rollout.scores?.[at], truth: rollout.truths?.[at], log: rollout.logs?.[at], paid: rollout.paid?.[at] };
      stepLine(list, `step ${at + 1}`, text, step).tabIndex = at ? -1 : 0;
    });
    walkable(list);
    return list;
  }
  form.addEventListener('input', refresh);
  form.addEventListener('reset', () => setTimeout(refresh));
  form.addEventListener('submit', event => event.preventDefault());
  for (const turn of turns) turn.addEventListener('click', () => {
    page += Number(turn.dataset.turn);
    show();
    form.scrollIntoView?.();
  });
  refresh();
}

function add(parent, tag, kind, text) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  if (text !== undefined && text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

/** A line with score, text and truth; what is known of it is shown at the pointer and at the focus. */
function stepLine(list, name, text, step) {
  const line = add(list, 'li'), [sign, kind] = markOf(step.truth), words = said(name, step);
  add(line, 'span', 'score', figure(step.score, 2)).setAttribute('aria-hidden', 'true');
  add(line, 'pre', '', text);
  add(line, 'b', `truth ${kind}`, sign).setAttribute('aria-hidden', 'true');
  add(line, 'span', 'said', words);
  line.style.background = colourOf(step.score);
  return line;
}

/** One stop of the tab key for a list; the arrows go from line to line. */
function walkable(list) {
  list.addEventListener('keydown', event => {
    const lines = [...list.children], at = lines.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: lines.length - 1 }[event.key];
    if (at < 0 || to === undefined || !lines[to]) return;
    event.preventDefault();
    lines[at].tabIndex = -1;
    lines[to].tabIndex = 0;
    lines[to].focus();
  });
}

function drawTrees(root) {
  const data = JSON.parse(root.querySelector('script').textContent);
  const form = root.querySelector('form'), place = root.querySelector('.tree');
  const { search, problem } = form.elements;

  function show() {
    const searched = data.searches[Number(search.value)];
    const record = searched.records[Number(problem.value)] ?? searched.records[0];
    place.replaceChildren();
    add(place, 'pre', 'prompt', data.prompts[record.prompt]);
    const [words, kind] = verdict(record.outcome), line = add(place, 'p', 'answer');
    add(line, 'b', kind, words);
    line.append(` · ${record.rule} gives `);
    add(line, 'code', '', record.answer ?? 'no answer');
    line.append(` · oracle ${figure(record.oracle, 2)} · ${record.leaves.length} finished responses`);
    if (record.stopped) line.append(` · stopped by the limit on ${record.stopped}`);
    add(place, 'p', 'key', record.whole ? 'Every node of the tree.'
      : 'Drawn from the finished responses, equal beginnings once; branches that were given up are not in the '
        + 'records (search.keep_nodes=true keeps them).');
    const list = add(place, 'ol', 'steps');
    for (const row of treeRows(record.nodes, record.chosen)) {
      const node = record.nodes[row.at];
      const item = stepLine(list, `step at depth ${row.depth}`, node.text,
        { score: node.score, truth: node.truth, log: node.log });
      item.style.marginLeft = `${Math.min(row.inset, 24) * 16}px`;
      item.tabIndex = list.children.length > 1 ? -1 : 0;
      if (row.chosen) item.classList.add('chosen');
      if (node.leaf === undefined) continue;
      const leaf = record.leaves[node.leaf], [result, sort] = verdict(leaf.outcome);
      const end = add(item, 'span', 'leaf');
      add(end, 'b', sort, `${node.leaf === record.chosen ? 'chosen: ' : ''}${leaf.answer ?? 'no answer'}`);
      end.append(` ${result}, score ${figure(leaf.score, 3)}`);
      if (typeof leaf.log === 'number') end.append(`, log-probability ${figure(leaf.log, 2)}`);
    }
    walkable(list);
  }
  function fill() {
    problem.replaceChildren();
    data.searches[Number(search.value)].records.forEach((record, at) => {
      add(problem, 'option', '', `${at + 1}: ${verdict(record.outcome)[0]}, ${record.problem}`).value = at;
    });
    show();
  }
  search.addEventListener('input', fill);
  problem.addEventListener('input', show);
  form.addEventListener('submit', event => event.preventDefault());
  fill();
}

if (typeof document !== 'undefined') {
  document.querySelectorAll('.browser').forEach(drawBrowser);
  document.querySelectorAll('.trees').forEach(drawTrees);
}
