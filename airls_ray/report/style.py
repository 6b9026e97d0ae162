"""CSS and script of the pages. Colours: Okabe and Ito's palette, lighter variants on dark."""

STYLE = """
:root{color-scheme:light dark;--font:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;
--page:#f6f7f9;--paper:#fff;--text:#1b1f24;--muted:#59626d;--grid:#dfe3e8;
--c0:#6b7480;--c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#b4578f;--c5:#d99100;--c6:#56b4e9;--c7:#b8a800;--c8:#1b1f24;
--high:rgba(0,114,178,.34);--low:rgba(230,120,0,.42)}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--paper:#1d2126;--text:#e7eaee;--muted:#a3adb8;
--grid:#363d46;--c0:#95a0ac;--c1:#4aa8e0;--c2:#f58748;--c3:#2fc497;--c4:#dc8cbc;--c5:#f0b440;--c6:#8fd0f5;
--c7:#e0d348;--c8:#e7eaee;--high:rgba(74,168,224,.40);--low:rgba(245,135,72,.42)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 var(--font)}
main{max-width:1240px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;margin:36px 0 10px}
h3{font-size:15px;margin:0}
p{margin:0 0 10px}
code,pre{font-family:var(--mono);font-size:13px}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.facts{color:var(--muted);margin:6px 0 0;overflow-wrap:anywhere}
.facts b{color:var(--text);font-weight:600}
.intro,.key{color:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin-top:22px}
.tile,.chart,article,.panel,details{background:var(--paper);border:1px solid var(--grid);border-radius:10px}
.tile{padding:14px 16px}
.tile span{display:block;color:var(--muted);font-size:13px}
.tile strong{font-size:27px;line-height:1.3;font-variant-numeric:tabular-nums}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;align-items:start}
.panel{padding:12px 16px}
.panel h3{margin-bottom:6px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
th:first-child{text-align:left;padding-left:0}
thead th,th:first-child{white-space:normal}
tbody tr:last-child>*{border-bottom:0}
thead th{color:var(--muted);font-weight:500;font-size:13px}
th[colspan]{text-align:center}
tbody th{font-weight:500}
td b{color:var(--c1)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,370px),1fr));gap:16px}
.charts.wide{grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}
.chart{margin:0;padding:14px 14px 8px;display:flex;flex-direction:column;min-width:0}
.chart figcaption p{color:var(--muted);font-size:13px;margin:0}
.legend{list-style:none;margin:6px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px}
.legend li{display:flex;align-items:center;gap:7px}
.swatch{position:relative;width:22px;height:0;border-top:3px solid var(--c)}
.swatch.dashed{border-top-style:dashed}
.swatch.dotted{border-top:3px dotted var(--c)}
.swatch.dashdot{border:0;height:3px;
background:linear-gradient(90deg,var(--c) 10px,#0000 10px 14px,var(--c) 14px 18px,#0000 18px)}
.swatch.area{width:13px;height:13px;border:0;border-radius:3px;background:var(--c)}
.swatch b{position:absolute;inset:-12px 0 auto;text-align:center;color:var(--c);font:13px/21px var(--font)}
.plot{position:relative;margin-top:auto;padding-top:6px}
.plot svg{display:block;width:100%;height:auto;overflow:visible}
.rule{position:absolute;width:1px;background:var(--muted);pointer-events:none}
.tip{position:absolute;z-index:2;pointer-events:none;background:var(--paper);border:1px solid var(--grid);
border-radius:7px;box-shadow:0 3px 12px rgba(0,0,0,.2);
padding:6px 9px;font-size:12.5px;white-space:nowrap;opacity:.94}
.tip div{display:flex;justify-content:space-between;gap:14px;font-variant-numeric:tabular-nums}
.tip span{display:flex;align-items:center;gap:6px}
.tip i{width:9px;height:9px;border-radius:50%}
details{padding:12px 16px;margin-top:18px}
summary{cursor:pointer;font-weight:600}
details[open]>summary{margin-bottom:12px}
details table{width:auto;min-width:50%}
details>.charts>.chart{background:none}
.edge{font-variant-numeric:tabular-nums}
.scale{display:inline-block;width:110px;height:13px;margin:0 7px;vertical-align:-2px;border-radius:3px;
border:1px solid var(--grid);
background:linear-gradient(90deg,var(--low),transparent,var(--high)),var(--paper)}
.right{color:var(--c1)}
.wrong{color:var(--c2)}
.unknown{color:var(--muted)}
.buttons{display:flex;flex-wrap:wrap;gap:8px;margin:0 0 14px}
button{font:13px var(--font);color:var(--text);background:var(--paper);border:1px solid var(--grid);
border-radius:999px;padding:4px 13px;cursor:pointer}
button[aria-pressed=true]{border-color:var(--c1);color:var(--c1);font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,370px),1fr));gap:16px;align-items:start}
article{padding:12px 14px;min-width:0}
article[hidden]{display:none}
article header{display:flex;justify-content:space-between;font-size:13px;font-weight:600;margin-bottom:8px}
article .policy{color:var(--muted);font-weight:400}
.prompt{padding-bottom:9px;max-height:220px;overflow:auto}
.steps{list-style:none;margin:0;padding:0;max-height:520px;overflow:auto}
.steps li{display:grid;grid-template-columns:38px 1fr 20px;gap:8px;align-items:baseline;padding:3px 8px;
margin-bottom:2px;border-radius:5px}
.steps .score{font-size:12px;color:var(--muted);font-variant-numeric:tabular-nums}
.steps .truth{text-align:center}
.answer{font-size:13px;color:var(--muted);margin:8px 0 0}
.answer code{color:var(--text)}
@media print{body{background:#fff}.chart,article,.panel{break-inside:avoid}}
"""

SCRIPT = """
'use strict';
const make = (parent, tag, name) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  parent.append(node);
  return node;
};
const text = value => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en')
  : String(+value.toPrecision(4));
for (const plot of document.querySelectorAll('.plot')) {
  const data = JSON.parse(plot.querySelector('script').textContent);
  const svg = plot.querySelector('svg');
  const scale = data.log ? Math.log2 : value => value;
  const [low, high] = data.range.map(scale);
  const all = [...new Set(data.lines.flatMap(line => line.points.map(point => point[0])))];
  let rule, tip;
  const hide = () => { if (tip) { tip.remove(); rule.remove(); tip = rule = null; } };
  plot.addEventListener('pointerleave', hide);
  plot.addEventListener('pointermove', event => {
    const frame = svg.getBoundingClientRect(), outer = plot.getBoundingClientRect();
    const zoom = frame.width / data.size[0];
    const [left, top, width, height] = data.box.map(value => value * zoom);
    const place = (event.clientX - frame.left - left) / width;
    if (!all.length || place < -0.03 || place > 1.03) return hide();
    const wanted = low + place * (high - low);
    const x = all.reduce((a, b) => Math.abs(scale(b) - wanted) < Math.abs(scale(a) - wanted) ? b : a);
    if (!tip) { rule = make(plot, 'div', 'rule'); tip = make(plot, 'div', 'tip'); }
    const at = frame.left - outer.left + left + (scale(x) - low) / (high - low) * width;
    const over = frame.top - outer.top + top;
    rule.style.cssText = `left:${at}px;top:${over}px;height:${height}px`;
    tip.replaceChildren();
    make(tip, 'div').textContent = `${data.x} ${text(x)}`;
    for (const line of data.lines) {
      const point = line.points.find(point => point[0] === x);
      if (!point) continue;
      const row = make(tip, 'div'), name = make(row, 'span');
      make(name, 'i').style.background = `var(--c${line.colour})`;
      name.append(line.name);
      make(row, 'b').textContent = text(point[1]);
    }
    const room = outer.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, at + 12 > room ? Math.min(room, at - 12 - tip.offsetWidth) : at + 12)}px`;
    tip.style.top = `${over + 4}px`;
  });
}
const buttons = [...document.querySelectorAll('button[data-show]')];
for (const button of buttons) button.addEventListener('click', () => {
  for (const other of buttons) other.setAttribute('aria-pressed', String(other === button));
  for (const card of document.querySelectorAll('article[data-kinds]'))
    card.hidden = !card.dataset.kinds.split(' ').includes(button.dataset.show);
});
"""
