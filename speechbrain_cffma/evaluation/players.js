// Only one player plays at a time. If another signal of the same recording starts, it
// continues at the same time, so that listeners can compare the two.
function linkPlayers(areOfOneRecording) {
  let current = null;
  document.addEventListener("play", ({ target }) => {
    if (current && current !== target && current.isConnected) {
      const goesOn = target.currentTime === 0 && areOfOneRecording(current, target);
      if (goesOn) target.currentTime = current.currentTime;
      current.pause();
      current.currentTime = 0;
    }
    current = target;
  }, true);
  document.addEventListener("ended", ({ target }) => { target.currentTime = 0; }, true);
}
