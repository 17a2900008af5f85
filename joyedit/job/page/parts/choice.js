// Which items are shown, and in which order.
'use strict';
joyedit.choice = (() => {
  const wish = { query: '', state: 'all', code: '', recipe: '', slow: false, off: false, note: false, drift: false, sort: 'id' };
  const NAMES = new Intl.Collator('en', { numeric: true }); // photo-9 before photo-10
  const SORTS = {
    id: ['By name', (a, b) => NAMES.compare(a.id, b.id)],
    run: ['As they ended', null],
    slow: ['Slowest first', (a, b) => (b.sec || 0) - (a.sec || 0)],
    failed: ['Failed first', (a, b) => (b.bad || 0) - (a.bad || 0)],
    drift: ['Most drift first', (a, b) => drift(b) - drift(a)],
    starred: ['Starred first', (a, b) => joyedit.marks.has(b) - joyedit.marks.has(a)],
  };
  const facts = { slow: Infinity, slowCount: 0, drift: Infinity, driftCount: 0, offCount: 0, noteCount: 0, codes: new Map(), recipes: new Map() };

  // How far a picture has moved, in pixels: the shift of its centre, and what the zoom adds at its edge.
  function drift(item) {
    if (!item.drift) return -1;
    const [dx, dy, zoom] = item.drift;
    const side = item.size ? Math.max(item.size[0], item.size[1]) : 1024;
    return Math.hypot(dx, dy) + Math.abs(zoom - 1) * side / 2;
  }

  // What the items have in common: thresholds and the values to choose from.
  function measure() {
    const { items } = joyedit;
    const times = [];
    facts.codes.clear();
    facts.recipes.clear();
    facts.offCount = facts.noteCount = facts.slowCount = facts.driftCount = 0;
    for (const item of items) {
      if (item.sec && !item.bad) times.push(item.sec);
      if (item.code) facts.codes.set(item.code, (facts.codes.get(item.code) || 0) + 1);
      if (item.recipe) facts.recipes.set(item.recipe, (facts.recipes.get(item.recipe) || 0) + 1);
      if (item.off) facts.offCount += 1;
      if (item.note) facts.noteCount += 1;
    }
    times.sort((a, b) => a - b);
    facts.slow = times.length ? 2 * times[times.length >> 1] : Infinity;
    const moved = items.filter((item) => item.drift).map(drift).sort((a, b) => a - b);
    facts.drift = moved.length ? Math.max(4, 2 * moved[moved.length >> 1]) : Infinity;
    for (const item of items) {
      if (item.sec > facts.slow) facts.slowCount += 1;
      if (drift(item) > facts.drift) facts.driftCount += 1;
    }
    facts.hasDrift = moved.length > 0;
  }

  function passes(item, terms) {
    if (wish.state === 'done' && item.bad) return false;
    if (wish.state === 'failed' && !item.bad) return false;
    if (wish.state === 'starred' && !joyedit.marks.has(item)) return false;
    if (wish.code && item.code !== wish.code) return false;
    if (wish.recipe && item.recipe !== wish.recipe) return false;
    if (wish.slow && !(item.sec > facts.slow)) return false;
    if (wish.drift && !(drift(item) > facts.drift)) return false;
    if (wish.off && !item.off) return false;
    if (wish.note && !item.note) return false;
    if (!terms.length) return true;
    const text = `${item.id}\n${item.text}\n${item.code || ''}\n${item.why || ''}\n${item.in || ''}\n${item.lora || ''}`.toLowerCase();
    return terms.every((term) => text.includes(term));
  }

  function choose() {
    const terms = wish.query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = joyedit.items.filter((item) => passes(item, terms));
    const by = SORTS[wish.sort][1];
    if (by) found.sort((a, b) => by(a, b) || a.n - b.n);
    return found;
  }

  const isPlain = () => !wish.query && wish.state === 'all' && !wish.code && !wish.recipe && !wish.slow && !wish.off && !wish.note && !wish.drift;
  function clear() {
    Object.assign(wish, { query: '', state: 'all', code: '', recipe: '', slow: false, off: false, note: false, drift: false });
  }
  return { wish, facts, SORTS, choose, measure, drift, isPlain, clear };
})();
