'use strict';
(() => {
const main = document.querySelector('main');

// Each bar and graph is a slider that is only read: at each of its places it says what was there.
const tip = document.querySelector('footer').appendChild(document.createElement('div')), pages = new Map();
const STATES = {u: 'up', g: 'degraded', x: 'down', o: 'hbd was not listening', q: 'maintenance window or silence'};
const time = new Intl.DateTimeFormat([], {weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23'}), day = new Intl.DateTimeFormat([], {weekday: 'short', month: 'short', day: 'numeric', timeZone: 'UTC'});
let at, rest;
tip.id = 'tip';
tip.hidden = true;
tip.style.cssText = 'position:absolute;z-index:1;max-width:min(360px,calc(100vw - 16px));padding:4px 8px;background:var(--ink);color:var(--card);font-size:13px;border-radius:4px;pointer-events:none';

const isGraph = svg => svg.matches('.z'), width = svg => svg.matches('.h') ? 4 : 2;
const points = () => [...main.querySelectorAll('#points tbody tr')].reverse();
const places = svg => isGraph(svg) ? points().length : svg.viewBox.baseVal.width / width(svg);
const cells = row => [...row.cells].map(cell => cell.textContent);

function sliders() {
  if (at && !at.svg.isConnected) hide();
  const row = at?.svg.closest('tr') || main.querySelector('.hosts tbody tr:not([hidden])');
  for (const svg of main.querySelectorAll('svg.b, svg.z')) {
    const last = places(svg) - 1, own = svg.closest('.hosts tr');
    svg.style.cssText = 'cursor:crosshair;touch-action:pan-y';
    // In the table one row is on the way of the Tab key, the arrows lead to the others.
    svg.setAttribute('tabindex', !own || own === row ? 0 : -1);
    if (svg.getAttribute('role') === 'slider' && svg.ariaValueMax === String(last)) continue;
    for (const [name, value] of Object.entries({role: 'slider', 'aria-readonly': true, 'aria-valuemin': 0, 'aria-valuemax': last, 'aria-valuenow': last})) svg.setAttribute(name, value);
  }
  if (at && !tip.hidden) point(at.svg, at.place);
}

// What was drawn there.
function states(svg, place) {
  const middle = (place + .5) * width(svg), found = [];
  for (const path of svg.children) for (const [, x, length] of path.getAttribute('d').matchAll(/M(\d+) \d+h(\d+)/g)) if (+x < middle && middle < +x + +length) found.push(path.className.baseVal);
  const worst = found.filter(name => name !== 'q').pop();
  return [worst ? STATES[worst] : 'nothing known', found.includes('q') && STATES.q].filter(Boolean);
}

function words(svg, place, root) {
  if (isGraph(svg)) {
    const rows = points(), x = +rows[place].dataset.x, next = +(rows[place + 1]?.dataset.x ?? 1001);
    const [when, least, mean, most] = cells(rows[place]);
    const events = [...main.querySelectorAll('#marks li')].filter(one => one.dataset.x >= x && one.dataset.x < next);
    return [`${when}: ${mean}`, least === most || `${least} to ${most}`, ...events.map(one => one.querySelector('.w').textContent)].filter(part => part !== true).join(', ');
  }
  const hours = svg.matches('.h'), step = hours ? 36e5 : 864e5;
  // The last one is that of hbd's clock: the reader's may be wrong, or the page an hour old.
  const last = svg.closest('[data-hour]').dataset.hour;
  const from = (Math.floor(last * 36e5 / step) + 1 - places(svg) + place) * step;
  const when = hours ? `${time.format(from)} to ${time.format(from + step).slice(-5)}` : day.format(from);
  const row = root.querySelector(`${hours ? '#hours' : '#days'} [data-i="${place}"]`);
  const said = row ? cells(row).slice(1, 3).filter(Boolean) : states(svg, place);
  return `${when}: ${said.join(': ')}`;
}

function point(svg, place, root = main) {
  if (!places(svg)) return;
  place = Math.max(0, Math.min(places(svg) - 1, place));
  const box = svg.getBoundingClientRect(), share = isGraph(svg) ? points()[place].dataset.x / 1000 : (place + .5) / places(svg);
  at = {svg, place};
  tip.textContent = words(svg, place, root);
  svg.setAttribute('aria-valuenow', place);
  svg.setAttribute('aria-valuetext', tip.textContent);
  tip.hidden = false;
  tip.style.left = `${scrollX + Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + box.width * share - tip.offsetWidth / 2))}px`;
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.top = `${scrollY + (below ? box.bottom + 6 : box.top - 6 - tip.offsetHeight)}px`;
  if (isGraph(svg)) {
    const line = svg.querySelector('.at') || svg.appendChild(document.createElementNS(svg.namespaceURI, 'path'));
    line.setAttribute('class', 'at');
    line.setAttribute('d', `M${share * 1000} 0V300`);
  } else if (root === main) more(svg, place);
}

// For how long, and why, is on the page of the host.
function more(svg, place) {
  const link = svg.closest('.hosts tr')?.querySelector('th a');
  clearTimeout(rest);
  if (!link || /^(up|nothing)/.test(states(svg, place))) return;
  rest = setTimeout(async () => {
    let page = pages.get(link.href);
    if (!page || Date.now() - page.at > 6e4) {
      const answer = await fetch(link.pathname + '?part=1').catch(() => ({}));
      if (!answer.ok) return;
      page = {at: Date.now(), root: new DOMParser().parseFromString(await answer.text(), 'text/html')};
      if (pages.size > 50) pages.clear();
      pages.set(link.href, page);
    }
    if (at?.svg === svg && at.place === place && !tip.hidden) point(svg, place, page.root);
  }, 150);
}

function hide() {
  tip.hidden = true;
  at?.svg.querySelector('.at')?.remove();
}

function onPointer(event) {
  const svg = event.target.closest?.('svg[role=slider]');
  if (!svg) return event.type === 'pointermove' && document.activeElement !== at?.svg && hide();
  const box = svg.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  // A point stands for the time from there on.
  const reached = () => points().filter(row => row.dataset.x <= share * 1000).length - 1;
  const place = Math.max(0, isGraph(svg) ? reached() : Math.min(places(svg) - 1, Math.floor(share * places(svg))));
  if (at?.svg !== svg || at.place !== place || tip.hidden) point(svg, place);
}

function onKey(event) {
  const svg = event.target.closest?.('svg[role=slider]');
  if (!svg) return;
  const place = +svg.getAttribute('aria-valuenow'), to = {ArrowLeft: place - 1, ArrowRight: place + 1, PageUp: place + 10, PageDown: place - 10, Home: 0, End: places(svg) - 1}[event.key];
  const step = {ArrowUp: 'previousElementSibling', ArrowDown: 'nextElementSibling'}[event.key], row = svg.closest('.hosts tr');
  if (to !== undefined) point(svg, to);
  else if (event.key === 'Escape') hide();
  else if (step && row) {
    let other = row[step];
    while (other?.hidden) other = other[step];
    const next = other?.querySelector(svg.matches('.h') ? 'svg.h' : 'svg.b:not(.h)');
    if (!next) return;
    next.setAttribute('aria-valuenow', place);
    next.focus();
    sliders();
  } else return;
  event.preventDefault();
}

addEventListener('pointermove', onPointer);
addEventListener('pointerdown', onPointer);
addEventListener('keydown', onKey);
document.addEventListener('focusin', event => event.target.matches('svg[role=slider]') && point(event.target, +event.target.getAttribute('aria-valuenow')));
document.addEventListener('focusout', event => event.target.matches('svg[role=slider]') && hide());
document.addEventListener('fresh', sliders);
sliders();
})();
