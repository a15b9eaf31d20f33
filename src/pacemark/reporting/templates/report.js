const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = [...document.querySelectorAll("figure.chart")];

function chosen(figure) {
  return data.charts[figure.id][figure.querySelector("select")?.value ?? 0];
}

async function draw(figure) {
  const plot = figure.querySelector(".plot");
  if (!plot.offsetParent) return; // folded away
  const { name, specs } = chosen(figure);
  const size = specs.length > 1 ? data.from.findIndex((from) => innerWidth >= from) : 0;
  const wanted = [name, size, dark.matches].join();
  if (figure.drawn === wanted) return;
  figure.drawn = wanted;
  const config = dark.matches ? data.dark : data.light;
  figure.view = vegaEmbed(plot, { ...specs[size], config }, {
    renderer: "svg",
    actions: false,
    tooltip: { theme: dark.matches ? "dark" : "light" },
  }).then((drawn) => drawn.view);
  await figure.view;
  plot.querySelector("svg").setAttribute("aria-label", figure.getAttribute("aria-label"));
  for (const group of plot.querySelectorAll("[role=graphics-symbol]:not([aria-label])")) {
    group.removeAttribute("role"); // it says nothing; the marks in it do
    group.removeAttribute("aria-roledescription");
  }
}

const drawAll = () => figures.reduce((before, figure) => before.then(() => draw(figure)), Promise.resolve());

function cells(tag, texts) {
  const row = document.createElement("tr");
  for (const text of texts) row.append(Object.assign(document.createElement(tag), { textContent: text }));
  return row;
}

function fill(figure) {
  const { head, rows } = chosen(figure);
  const table = document.createElement("table");
  table.createTHead().append(cells("th", head));
  table.createTBody().append(...rows.map((row) => cells("td", row)));
  figure.querySelector(".rows").replaceChildren(table);
}

async function save(figure, kind) {
  const view = await figure.view;
  const url = kind === "svg"
    ? URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }))
    : await view.toImageURL("png", 2);
  Object.assign(document.createElement("a"), { href: url, download: `pacemark-${figure.id}.${kind}` }).click();
}

for (const figure of figures) {
  const rows = figure.querySelector(".rows");
  figure.querySelector(".tools").hidden = false;
  figure.querySelector("select")?.addEventListener("change", () => {
    draw(figure);
    if (!rows.hidden) fill(figure);
  });
  for (const button of figure.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      if (button.dataset.do !== "table") return save(figure, button.dataset.do);
      rows.hidden = !rows.hidden;
      button.setAttribute("aria-expanded", String(!rows.hidden));
      if (!rows.hidden) fill(figure);
    });
  }
}

function unfold() {
  for (const part of document.querySelectorAll("details")) part.open = true;
}

const unfolder = document.getElementById("unfold");
unfolder.hidden = false;
unfolder.addEventListener("click", unfold);
for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", drawAll);
dark.addEventListener("change", drawAll);
addEventListener("resize", drawAll);
addEventListener("beforeprint", unfold);
drawAll();
