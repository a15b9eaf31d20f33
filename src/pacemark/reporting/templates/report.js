const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
let drawn = "";
async function draw() {
  const size = data.sizes.find((x) => innerWidth >= x.from);
  const wanted = size.from + " " + dark.matches;
  if (wanted === drawn) return;
  drawn = wanted;
  const config = dark.matches ? data.dark : data.light;
  for (const [n, spec] of size.specs.entries()) {
    await vegaEmbed("#chart" + n, { ...spec, config }, {
      renderer: "svg",
      actions: false,
      tooltip: { theme: dark.matches ? "dark" : "light" },
    });
  }
}
dark.addEventListener("change", draw);
addEventListener("resize", draw);
draw();
