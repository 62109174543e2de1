"""More than one machine, on Ray: `pip install 'speechbrain-cffma[ray]'`.

`connection` connects to a cluster, or starts one on this computer, and checks its nodes.
Nothing outside this folder imports Ray, and this folder imports it only when it is
asked for.

Authors
 * The speechbrain-cffma developers 2026
"""
