// Tables: a click on a heading sorts by it; a second click reverses the order.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || isNaN(text) ? text : Number(text);
}
function compare(a, b) {
  if (a === "" || b === "") return 0;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const first = button.dataset.first ?? "ascending", other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentElement.cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map(row => [valueOf(row, head.cellIndex), row]);
    // Rows without a value come last in both orders.
    rows.sort(([a], [b]) => (a === "") - (b === "") || sign * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  });
}
// The search shows the rows that contain all its words.
document.getElementById("filter").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("#files tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
});
// A spectrogram shows the position of its player; a click plays from there.
linkPlayers((one, other) => one.closest("article") === other.closest("article"));
function start(audio) {
  // Pausing before the sound has started is no error.
  audio.play().catch(error => { if (error.name !== "AbortError") throw error; });
}
for (const signal of document.querySelectorAll(".signal")) {
  const audio = signal.querySelector("audio"), view = signal.querySelector(".spectrogram"), head = signal.querySelector(".head");
  const follow = () => {
    head.style.left = 100 * audio.currentTime / audio.duration + "%";
    head.style.opacity = audio.paused && audio.currentTime === 0 ? 0 : 1;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("seeked", follow);
  const play = share => {
    audio.currentTime = share * audio.duration;
    start(audio);
  };
  view.addEventListener("click", event => play(event.offsetX / view.clientWidth));
  view.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (audio.paused) start(audio); else audio.pause();
  });
}
