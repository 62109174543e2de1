linkPlayers(() => true);
// Gradio's players have no labels for screen readers.
new MutationObserver(() => {
  for (const player of document.querySelectorAll("audio:not([aria-label])"))
    player.ariaLabel = player.closest("#enhanced") ? "Enhanced" : "Noisy";
}).observe(document.body, { childList: true, subtree: true });
// Gradio's sliders report only the pointer, so report keys too.
document.addEventListener("keyup", ({ target, key }) => {
  if (target.type === "range" && /^(Arrow|Home|End|Page)/.test(key))
    target.dispatchEvent(new Event("pointerup", { bubbles: true }));
  if (target.type === "number" && key === "Enter") target.blur();
});
