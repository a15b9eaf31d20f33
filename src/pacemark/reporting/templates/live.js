const known = KNOWN;
const token = new URLSearchParams(location.search).get("token");
const dark = matchMedia("(prefers-color-scheme: dark)");
const at = (id) => document.getElementById(id);
let views = {};
let last = null;

const number = (x) => (x === null ? "-" : Math.abs(x) >= 100 ? Math.round(x).toLocaleString("en") : x.toPrecision(3));
const seconds = (x) => (x === null ? "" : `, ${Math.round(x)} s left`);

async function draw(name, sets) {
  if (!Object.values(sets)[0].length) return;
  if (!views[name]) {
    const config = dark.matches ? known.dark : known.light;
    const spec = { ...known[name], config, datasets: sets };
    views[name] = vegaEmbed(at(name), spec, { renderer: "svg", actions: false, ast: true }).then((drawn) => drawn.view);
  }
  const view = await views[name];
  for (const [data, rows] of Object.entries(sets)) view.data(data, rows);
  await view.runAsync();
  const svg = at(name).querySelector("svg");
  svg.setAttribute("aria-label", known[name].title.text ?? known[name].title);
  for (const group of svg.querySelectorAll("[role=graphics-symbol]:not([aria-label])")) {
    group.removeAttribute("role"); // it says nothing; the marks in it do
    group.removeAttribute("aria-roledescription");
  }
}

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function tile(name, value) {
  const box = document.createElement("article");
  box.append(element("h2", name), element("b", value));
  return box;
}

function row(tag, texts) {
  const made = document.createElement("tr");
  made.append(...texts.map((text) => element(tag, text)));
  return made;
}

function show(state) {
  last = state;
  const level = state.levels.at(-1);
  at("title").textContent = state.title;
  at("goal").textContent = state.search ? `${state.goal}: ${state.search.said}` : state.goal;
  document.title = `pacemark: ${state.ended ?? "live"}: ${state.title}`;
  const of = state.expected ? ` of ${state.expected}` : "";
  at("now").textContent = state.ended
    ? `The run has ${state.ended === "completed" ? "ended" : `ended: ${state.ended}`}; its folder holds report.html.`
    : level
      ? `Level ${state.levels.length}${of}: ${level.load}, ${level.phase}${seconds(level.left_s)}`
      : "Waiting for the first level ...";
  const client = state.idle_share === null ? "-" : `${Math.round(100 * state.idle_share)}% idle`;
  at("tiles").replaceChildren(
    tile("Output tok/s", number(state.tokens_per_s)),
    tile("TTFT p50, ms", number(level?.ttft_ms_p50 ?? null)),
    tile("TTFT p95, ms", number(level?.ttft_ms_p95 ?? null)),
    tile("In flight", String(state.in_flight)),
    tile("Failed", String(level?.failed ?? 0)),
    tile("This client", client),
  );
  const drawn = state.levels
    .map((x) => ({ ...x, tokens: x.output_tokens_per_s, latency: x.latency_ms_p50, short: x.load.split(" ").at(-1) }))
    .filter((x) => x.tokens !== null && x.latency !== null);
  if (state.search) drawn.sort((a, b) => a.latency - b.latency); // in the order of its levels it would zigzag
  drawn.forEach((x, n) => { x.n = n; });
  draw("curve", { levels: drawn });
  draw("series", { series: state.series.map(([ago, tokens, failed]) => ({ at: -ago, tokens, failed })) });
  if (state.search) search(state.search);
  const head = ["Load", "State", "tokens/s", "TTFT p50, ms", "TTFT p95, ms", "Latency p50, ms", "Requests", "Failed"];
  const cells = (x) => [x.load, x.phase, number(x.output_tokens_per_s), number(x.ttft_ms_p50), number(x.ttft_ms_p95),
    number(x.latency_ms_p50), String(x.completed), String(x.failed)];
  at("levels").replaceChildren(row("th", head), ...state.levels.map((x) => row("td", cells(x))));
}

function search({ low, high, tried }) {
  const loads = tried.map(([load]) => load);
  const known = low !== null || high !== null;
  const band = known ? [{ load: low || Math.min(...loads), high: high ?? Math.max(...loads) }] : [];
  at("searched").hidden = !loads.length;
  draw("search", { tried: tried.map(([load, status]) => ({ load, status })), band });
}

async function poll() {
  const answer = await fetch("state", { headers: { "X-Token": token } }).catch(() => null);
  if (answer?.ok) show(await answer.json());
  if (!answer) at("goal").textContent = "The viewer has ended; this is the last that it told.";
  setTimeout(poll, !answer || document.hidden ? 5000 : last?.ended ? 10000 : 1000);
}

dark.addEventListener("change", () => {
  views = {};
  if (last) show(last);
});
poll();
