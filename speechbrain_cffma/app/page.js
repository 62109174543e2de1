linkPlayers(() => true);
// Gradio's players have no names for screen readers.
new MutationObserver(() => {
  for (const player of document.querySelectorAll("audio:not([aria-label])"))
    player.ariaLabel = player.closest("#enhanced") ? "Enhanced" : "Noisy";
}).observe(document.body, { childList: true, subtree: true });
// Its sliders tell of the pointer only: keys count as well.
document.addEventListener("keyup", ({ target, key }) => {
  if (target.type === "range" && /^(Arrow|Home|End|Page)/.test(key))
    target.dispatchEvent(new Event("pointerup", { bubbles: true }));
  if (target.type === "number" && key === "Enter") target.blur();
});
