// Bring a page's widgets to life: each is a module with render({ model, el }), no kernel needed.

class Model {
  constructor(state, address) {
    Object.assign(this, { state, address, calls: [] });
  }
  get(name) {
    return this.state[name];
  }
  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.state[name] = value;
    for (const [event, call] of [...this.calls])
      if (event === "change" || event === `change:${name}`) call();
  }
  save_changes() {}
  on(event, call) {
    this.calls.push([event, call]);
  }
  off(event, call) {
    this.calls = this.calls.filter(([e, c]) => e !== event || c !== call);
  }
}

const count = {};
for (const el of document.querySelectorAll("[data-widget]")) {
  const name = el.dataset.widget;
  count[name] = (count[name] ?? 0) + 1;
  const address = name + (count[name] > 1 ? `-${count[name]}` : "");
  const [state, words] = el.children;
  import(new URL(`${name}.js`, import.meta.url))
    .then(({ render }) => {
      render({ model: (el.model = new Model(JSON.parse(state.textContent), address)), el });
      words.remove();
      el.dataset.ready = "";
    })
    .catch((error) => {
      words.textContent = "This widget could not start. ";
      console.error(error);
    });
}
