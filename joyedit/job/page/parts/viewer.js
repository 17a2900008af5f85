// One item in full: before and after, and all that its record says.
'use strict';
joyedit.viewer = (() => {
  const { make, by } = joyedit;
  let item = null;
  let input = -1; // which of the pictures before is compared; -1: the last one
  const dialog = () => by('viewer');

  function begin() {
    joyedit.compare.begin();
    by('viewer-close').onclick = () => dialog().close();
    by('viewer-previous').onclick = () => step(-1);
    by('viewer-next').onclick = () => step(1);
    by('viewer-star').onclick = () => star();
    by('viewer-before').onclick = () => before();
    by('viewer-zoom').onclick = () => zoom();
    dialog().addEventListener('close', () => {
      item = null;
      by('grid').focus({ preventScroll: true });
      document.documentElement.classList.remove('still');
    });
    dialog().addEventListener('keydown', key);
  }

  function open(one) {
    if (!one) return;
    if (!dialog().open) {
      document.documentElement.classList.add('still');
      dialog().showModal();
      by('stage').focus({ preventScroll: true });
    }
    input = -1;
    show(one);
  }

  function show(one) {
    item = one;
    const at = joyedit.grid.placeOf(one) ?? 0;
    const count = joyedit.grid.order().length;
    by('viewer-place').textContent = `${joyedit.number(at + 1)} / ${joyedit.number(count)}`;
    by('viewer-id').textContent = one.show || one.id;
    by('viewer-previous').disabled = at === 0;
    by('viewer-next').disabled = at + 1 >= count;
    paintStar();
    by('inputs').hidden = true;
    joyedit.compare.show(joyedit.picture(one), one.before ? joyedit.path(one.before) : '', one.size, one.fit);
    joyedit.details.show(one, null);
    joyedit.detailsOf(one).then((more) => {
      if (item !== one) return;
      joyedit.details.show(one, more || {});
      compareWith(more);
      inputs(more);
      prefetch(at + 1);
    });
  }

  function compareWith(more) {
    const all = (more && more.inputs) || [];
    const chosen = all[input < 0 ? all.length - 1 : input];
    const small = item.before && input < 0 ? joyedit.path(item.before) : '';
    const link = chosen ? (chosen.view ? joyedit.path(chosen.view) : small || (chosen.off ? '' : chosen.link) || '') : small;
    joyedit.compare.show(joyedit.picture(item), link, item.size, item.fit);
  }

  // Several pictures before: one of them is compared.
  function inputs(more) {
    const box = by('inputs');
    const all = (more && more.inputs) || [];
    box.replaceChildren();
    box.hidden = all.length < 2;
    if (box.hidden) return;
    all.forEach((one, number) => {
      const button = make('button', 'input', `${number + 1}. ${one.name}`);
      button.type = 'button';
      button.setAttribute('aria-pressed', number === (input < 0 ? all.length - 1 : input));
      button.onclick = () => {
        input = number;
        compareWith(more);
        [...box.children].forEach((other, at) => other.setAttribute('aria-pressed', at === number));
      };
      box.append(button);
    });
  }

  function prefetch(at) {
    const next = joyedit.grid.order()[at];
    const link = next && joyedit.picture(next);
    if (link) new Image().src = link;
  }

  function step(by) {
    const next = joyedit.grid.order()[(joyedit.grid.placeOf(item) ?? 0) + by];
    if (!next) return;
    input = -1;
    joyedit.grid.setActive(joyedit.grid.placeOf(next));
    show(next);
  }

  function star() { joyedit.grid.star(item); paintStar(); }
  function paintStar() {
    const isMarked = joyedit.marks.has(item);
    const button = by('viewer-star');
    button.textContent = isMarked ? '★' : '☆';
    button.setAttribute('aria-pressed', isMarked);
    button.setAttribute('aria-label', isMarked ? 'Starred' : 'Star');
  }

  function before() {
    const pressed = by('viewer-before').getAttribute('aria-pressed') !== 'true';
    by('viewer-before').setAttribute('aria-pressed', pressed);
    by('compare').classList.toggle('only-before', pressed);
  }

  function zoom() {
    joyedit.compare.whole(!joyedit.compare.isWhole());
    by('viewer-zoom').setAttribute('aria-pressed', joyedit.compare.isWhole());
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isSlider = event.target === by('compare-handle');
    const isScrolling = event.target === by('details') && /^(Arrow(Up|Down)|Page)/.test(event.key);
    const slide = { ArrowLeft: -2, ArrowRight: 2, ArrowDown: -2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
    if (isSlider && slide !== undefined) joyedit.compare.by(slide);
    else if (isScrolling) return;
    else if (event.key === 'ArrowLeft' || event.key === 'ArrowUp') step(-1);
    else if (event.key === 'ArrowRight' || event.key === 'ArrowDown') step(1);
    else if (event.key === 's' || event.key === 'S') star();
    else if (event.key === ' ' && event.target.tagName !== 'BUTTON' && event.target.tagName !== 'A') star();
    else if (event.key === 'b' || event.key === 'B') before();
    else if (event.key === 'z' || event.key === 'Z') zoom();
    else if (event.key === '[') joyedit.compare.by(-5);
    else if (event.key === ']') joyedit.compare.by(5);
    else if (event.key === '?') by('help').showModal();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return { begin, open, isOpen: () => dialog().open };
})();
