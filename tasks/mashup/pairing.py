"""What makes two songs a good mash-up, as the numbers that `storage.results.pairs` ranks by.

The score, between 0 and 1, is a product: how near the tempi are (no change of speed is best), how little the vocals
must be shifted and how far apart the keys then are, how much of the song is sung, and how well it was probably
separated.
"""

WEIGHTS = {
    "most_octaves": 0.2,  # of tempo, beyond which a pair is not considered: 15 % either way
    "tempo_octaves": 0.1,  # at which the tempo's part of the score has fallen to 1/e
    "semitones": 8.0,  # of shift at which nothing is left of the score
    "fifths": 24.0,  # the same for the distance of keys
    "least_clarity": 0.25,  # of a beat that can be followed
    "least_activity": 0.05,  # of the vocals, below which there is nothing to lay over another song
    "full_activity": 0.6,  # of the vocals, from which more of them is no better
    "activity_share": 0.6,  # of the score that is lost without any vocals
    "full_sdr": 12.0,  # dB, from which better is no better
    "usual_sdr": 5.0,  # dB, where no prediction is known
    "quality_share": 0.6,  # of the score that is lost at 0 dB
}
