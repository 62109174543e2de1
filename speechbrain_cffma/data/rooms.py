"""Simulated rooms: impulse responses of box-shaped rooms by the image source method.

The method is by Allen and Berkley (Image method for efficiently simulating small-room
acoustics, JASA 1979), as implemented in pyroomacoustics (arXiv 1710.04196).

Authors
 * The speechbrain-cffma developers 2026
"""

from pathlib import Path

import numpy as np

from speechbrain_cffma import audio
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import InputError

#: Ranges of a room's longer wall in metres. Training and test rooms don't overlap.
TRAIN_LENGTHS = ((3.0, 4.0), (5.0, 6.0), (7.0, 8.0))
TEST_LENGTHS = ((4.0, 5.0), (6.0, 7.0), (8.0, 9.0))

#: Limits of the other sides in metres; the shorter wall is at most as long as the longer.
MIN_WIDTH = 2.5
HEIGHTS = (2.5, 3.5)
#: Range of the distance between speaker and microphone, and their least distance to the
#: walls, in metres.
DISTANCES = (0.5, 2.0)
WALL_DISTANCE = 0.4

SPEED_OF_SOUND = 343.0
#: Number of draws after which a reverberation time counts as impossible.
MAX_DRAWS = 100


def simulate_room(rng, lengths=TRAIN_LENGTHS, rt60=(0.2, 0.6)):
    """Simulate the impulse response of a random room, beginning with the direct sound.

    Speaker and microphone are a whole number of samples apart. The direct sound is
    therefore one sample, and reverberant speech is aligned with dry speech. Rooms in which
    reflections add up to more than the direct sound are drawn again.

    Arguments
    ---------
    rng : np.random.Generator
        Source of randomness.
    lengths : sequence of (float, float)
        Ranges of the longer wall in metres; one range is drawn, then a length from it.
    rt60 : (float, float)
        Range of the reverberation time RT60 in seconds (uniform), in which sound decays
        by 60 dB according to Sabine's formula.

    Returns
    -------
    np.ndarray
        Impulse response [R], float32, of length RT60. The direct sound is its first and
        its largest sample, 1.

    Raises
    ------
    InputError
        If no room of this size has such a reverberation time.

    Example
    -------
    >>> rir = simulate_room(np.random.default_rng(0), rt60=(0.2, 0.3))
    >>> float(rir[0]), bool(np.abs(rir[1:]).max() < 1), 0.2 <= len(rir) / 16000 <= 0.3
    (1.0, True, True)
    """
    import pyroomacoustics

    # One thread: several threads add up in varying order, which changes the last bits.
    pyroomacoustics.constants.set("num_threads", 1)
    for _ in range(MAX_DRAWS):
        size = _draw_size(rng, lengths)
        decay = rng.uniform(*rt60)
        microphone, speaker, delay = _draw_places(rng, size)
        try:
            absorption, max_order = pyroomacoustics.inverse_sabine(
                decay, size, c=SPEED_OF_SOUND
            )
        except ValueError:  # walls would have to absorb more than all sound
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
        # The filter for fractional delays adds half its length to every arrival.
        direct = delay + pyroomacoustics.constants.get("frac_delay_length") // 2
        if np.abs(rir).argmax() == direct:
            rir = rir[direct : direct + round(decay * SAMPLE_RATE)]
            return (rir / rir[0]).astype(np.float32)
    raise InputError(
        f"no room with walls of {lengths[0][0]:g} to {lengths[-1][1]:g} m was found for "
        f"an RT60 of {rt60[0]:g} to {rt60[1]:g} s: give another range of either"
    )


def write_rooms(
    folder, n_rooms, lengths=TRAIN_LENGTHS, rt60=(0.2, 0.6), seed=0, n_jobs=-1
):
    """Write impulse responses of random rooms as 32-bit float WAV files at 16 kHz.

    Arguments
    ---------
    folder : str or Path
        Folder for the files 000.wav, 001.wav and so on.
    n_rooms : int
        Number of rooms.
    lengths : sequence of (float, float)
        `TRAIN_LENGTHS` or `TEST_LENGTHS`, see `simulate_room`.
    rt60 : (float, float)
        See `simulate_room`.
    seed : int
        Seed. Each room depends only on the seed and on its number.
    n_jobs : int
        Number of processes; -1 for one per core.

    Raises
    ------
    InputError
        The errors of `simulate_room`, or if a file can't be written.

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
    """Positions of microphone and speaker in metres, and the delay in samples."""
    bounds = np.array([np.full(3, WALL_DISTANCE), size - WALL_DISTANCE])
    while True:
        microphone = rng.uniform(*bounds)
        direction = rng.standard_normal(3)
        delay = round(rng.uniform(*DISTANCES) / SPEED_OF_SOUND * SAMPLE_RATE)
        distance = delay * SPEED_OF_SOUND / SAMPLE_RATE
        speaker = microphone + distance * direction / np.linalg.norm(direction)
        if (speaker >= bounds[0]).all() and (speaker <= bounds[1]).all():
            return microphone, speaker, delay
