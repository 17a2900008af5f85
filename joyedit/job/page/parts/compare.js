// Before and after in one place, with a slider between them.
'use strict';
joyedit.compare = (() => {
  const { by } = joyedit;
  let cut = 50;
  let shape = [4, 3];
  let isWhole = false; // each pixel as it is
  const box = () => by('compare');

  function begin() {
    const stage = by('stage');
    let held = false;
    box().addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || !box().classList.contains('both')) return;
      held = true;
      box().setPointerCapture(event.pointerId);
      follow(event);
      event.preventDefault();
      by('compare-handle').focus({ preventScroll: true });
    });
    box().addEventListener('pointermove', (event) => { if (held) follow(event); });
    for (const kind of ['pointerup', 'pointercancel']) box().addEventListener(kind, () => { held = false; });
    new ResizeObserver(() => resize()).observe(stage);
    set(cut);
  }

  function follow(event) {
    const { left, width } = box().getBoundingClientRect();
    set(((event.clientX - left) / width) * 100);
  }

  function set(value) {
    cut = Math.max(0, Math.min(100, value));
    box().style.setProperty('--cut', `${cut.toFixed(2)}%`);
    const handle = by('compare-handle');
    handle.setAttribute('aria-valuenow', Math.round(cut));
    handle.setAttribute('aria-valuetext', `${Math.round(cut)} percent before`);
  }

  // Show these; either link may be empty. `size` is [width, height] of the finished picture.
  function show(after, before, size, fit) {
    box().style.setProperty('--fit', fit || 'cover');
    shape = size || [4, 3];
    let hasShape = Boolean(size);
    const links = { after, before };
    for (const kind of ['after', 'before']) {
      const image = by(`compare-${kind}`);
      image.hidden = !links[kind];
      image.onload = () => {
        if (hasShape || !image.naturalWidth) return;
        hasShape = true;
        shape = [image.naturalWidth, image.naturalHeight];
        resize();
      };
      image.onerror = () => { image.hidden = true; links[kind] = ''; settle(); };
      if (links[kind]) image.src = links[kind];
      else image.removeAttribute('src');
    }
    const settle = () => {
      box().hidden = !links.after && !links.before;
      box().classList.toggle('both', Boolean(links.after && links.before));
      const message = by('stage-message');
      message.hidden = !box().hidden;
      message.textContent = 'There is no picture to show.';
    };
    settle();
    resize();
  }

  function resize() {
    const stage = by('stage');
    const scale = isWhole ? 1 / devicePixelRatio : Math.min(stage.clientWidth / shape[0], stage.clientHeight / shape[1], 2);
    box().style.width = `${Math.round(shape[0] * scale)}px`;
    box().style.height = `${Math.round(shape[1] * scale)}px`;
  }

  function whole(value) {
    isWhole = value;
    by('stage').classList.toggle('whole', value);
    resize();
    const stage = by('stage');
    stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  }

  return { begin, show, set, by: (step) => set(cut + step), whole, isWhole: () => isWhole };
})();
