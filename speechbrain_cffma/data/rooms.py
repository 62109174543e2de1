"""Simulated rooms: impulse responses of shoeboxes by the image source method.

The method is Allen and Berkley's (Image method for efficiently simulating small-room
acoustics, JASA 1979), as implemented by pyroomacoustics (arXiv 1710.04196).

Authors
 * The speechbrain-cffma developers 2026
"""

from pathlib import Path

import numpy as np

from speechbrain_cffma import audio
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import InputError

#: Bounds of a room's longer wall in metres: no room for testing is one for training.
TRAIN_LENGTHS = ((3.0, 4.0), (5.0, 6.0), (7.0, 8.0))
TEST_LENGTHS = ((4.0, 5.0), (6.0, 7.0), (8.0, 9.0))

#: Bounds of the other sides in metres; the shorter wall is at most as long as the longer.
MIN_WIDTH = 2.5
HEIGHTS = (2.5, 3.5)
#: Bounds of the distance between speaker and microphone, and theirs from the walls.
DISTANCES = (0.5, 2.0)
WALL_DISTANCE = 0.4

SPEED_OF_SOUND = 343.0
#: Draws of a room before its reverberation time is taken to be out of reach.
MAX_DRAWS = 100


def simulate_room(rng, lengths=TRAIN_LENGTHS, rt60=(0.2, 0.6)):
    """The impulse response of a random room, from the direct sound on.

    Speaker and microphone are a whole number of samples apart. So the direct sound is
    one sample, and reverberant speech is aligned with dry speech to the sample. A draw
    in which reflections add up to more than the direct sound is drawn again.

    Arguments
    ---------
    rng : np.random.Generator
        Source of randomness.
    lengths : sequence of (float, float)
        Bounds of the longer wall in metres; one pair of them is drawn.
    rt60 : (float, float)
        Bounds of the uniform reverberation time RT60 in seconds, over which the sound
        decays by 60 dB (by Sabine's formula).

    Returns
    -------
    np.ndarray
        [R], float32, RT60 long. The direct sound is its first and its largest sample, 1.

    Raises
    ------
    InputError
        If no room of that size has such a reverberation time.

    Example
    -------
    >>> rir = simulate_room(np.random.default_rng(0), rt60=(0.2, 0.3))
    >>> float(rir[0]), bool(np.abs(rir[1:]).max() < 1), 0.2 <= len(rir) / 16000 <= 0.3
    (1.0, True, True)
    """
    import pyroomacoustics

    # One thread: several sum up in an order of their own, and so to other last bits.
    pyroomacoustics.constants.set("num_threads", 1)
    for _ in range(MAX_DRAWS):
        size = _draw_size(rng, lengths)
        decay = rng.uniform(*rt60)
        microphone, speaker, delay = _draw_places(rng, size)
        try:
            absorption, max_order = pyroomacoustics.inverse_sabine(
                decay, size, c=SPEED_OF_SOUND
            )
        except ValueError:  # more than all sound would have to be absorbed
            continue
        room = pyroomacoustics.ShoeBox(
            size,
            fs=SAMPLE_RATE,
            materials=pyroomacoustics.Material(absorption),
            max_order=max_order,
        )
        room.set_sound_speed(SPEED_OF_SOUND)
        room.add_source(speaker)
        room.add_microphone(microphone)
        room.compute_rir()
        rir = room.rir[0][0]
        # Every arrival is that late: half the length of the filter of fractional delays.
        direct = delay + pyroomacoustics.constants.get("frac_delay_length") // 2
        if np.abs(rir).argmax() == direct:
            rir = rir[direct : direct + round(decay * SAMPLE_RATE)]
            return (rir / rir[0]).astype(np.float32)
    raise InputError(
        f"no room with walls of {lengths[0][0]:g} to {lengths[-1][1]:g} m was found for "
        f"an RT60 of {rt60[0]:g} to {rt60[1]:g} s: give other bounds"
    )


def write_rooms(
    folder, n_rooms, lengths=TRAIN_LENGTHS, rt60=(0.2, 0.6), seed=0, n_jobs=-1
):
    """Write impulse responses of random rooms as 32-bit float WAV files at 16 kHz.

    Arguments
    ---------
    folder : str or Path
        Where they go, as 000.wav and so on.
    n_rooms : int
        How many.
    lengths : sequence of (float, float)
        As of `simulate_room`: `TRAIN_LENGTHS` or `TEST_LENGTHS`.
    rt60 : (float, float)
        As of `simulate_room`.
    seed : int
        Seed of the rooms; each depends on it and on its number alone.
    n_jobs : int
        Processes; -1 for one a core.

    Raises
    ------
    InputError
        As of `simulate_room`, or if a file can't be written.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_rooms(folder, 2, TEST_LENGTHS, rt60=(0.2, 0.3), n_jobs=1)
    >>> [path.name for path in audio.find_audio(folder)]
    ['000.wav', '001.wav']
    """
    from joblib import Parallel, delayed

    def write(index):
        rir = simulate_room(np.random.default_rng((seed, index)), lengths, rt60)
        audio.write(Path(folder) / f"{index:03d}.wav", rir)

    Parallel(n_jobs=n_jobs)(delayed(write)(index) for index in range(n_rooms))


def _draw_size(rng, lengths):
    """Length, width and height of a room in metres."""
    length = rng.uniform(*lengths[rng.integers(len(lengths))])
    return np.array([length, rng.uniform(MIN_WIDTH, length), rng.uniform(*HEIGHTS)])


def _draw_places(rng, size):
    """Places of the microphone and the speaker in metres, and the delay in samples."""
    bounds = np.array([np.full(3, WALL_DISTANCE), size - WALL_DISTANCE])
    while True:
        microphone = rng.uniform(*bounds)
        direction = rng.standard_normal(3)
        delay = round(rng.uniform(*DISTANCES) / SPEED_OF_SOUND * SAMPLE_RATE)
        distance = delay * SPEED_OF_SOUND / SAMPLE_RATE
        speaker = microphone + distance * direction / np.linalg.norm(direction)
        if (speaker >= bounds[0]).all() and (speaker <= bounds[1]).all():
            return microphone, speaker, delay
