"""What the service promises, by whom it is guarded and tested.

`python -m tests.campaigns.guarantees` writes docs/guarantees.md. The figures come from `docs/proof.jsonl`, which
`make proof` wrote, with a digest of each row's guarding files (`--seal`). A row whose files are others now is shown as
*stale*; `--check`, which a release wants to pass, lists these and exits 1. `--again ROW ...` tries these rows alone at
the full counts, and notes what was measured of those whose tests pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
PROOF = ROOT / "docs" / "proof.jsonl"
SOURCES = (".py", ".c", ".h", ".js")
"""What counts of a folder that is named as a guard."""


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    row: str
    promise: str
    guard: str  # where it is kept
    tests: tuple[str, ...]  # FILE::FUNCTION
    n: str = ""  # how often, where the test itself does not note it
    figure: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that `guard` names. Raises FileNotFoundError for one that is not there."""
        paths = [_guarding(name) for name in re.findall(r"`([^`]+)`", self.guard)]
        inside = [sorted(x for x in p.rglob("*") if x.suffix in SOURCES) if p.is_dir() else [p] for p in paths]
        return tuple(path for some in inside for path in some)

    @property
    def digest(self) -> str:
        """Of the files' contents, in their order."""
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in self.files)).hexdigest()[:16]


def _guarding(name: str) -> Path:
    for root in ("service/kws_serve", "firmware_bridge/kws_board", "firmware_bridge", "."):
        if (ROOT / root / name).exists():
            return ROOT / root / name
    raise FileNotFoundError(f"{name}: found no such file, wanted one of the service, the board or the page")


_SEC, _TOK = "tests/api/test_security.py", "tests/api/test_tokens.py"
_GUESSES, _SCOPES = "tests/api/test_guesses.py", "tests/api/test_scopes.py"
_REFUSALS, _HUP = "tests/api/test_refusals.py", "tests/host/test_hang_up.py"
_TYPE = "tests/commands/test_as_users_type.py"
_PACE = "tests/api/test_pace.py"
_BOX = "tests/commands/test_container.py"
_EXPORTS = "tests/api/test_exports.py"
_PROXIES = "tests/api/test_proxies.py"
_MIC = "tests/sources/test_virtual_microphone.py"
_LOG, _REL = "tests/sinks/test_event_log.py", "tests/reliability"
_DAMAGE = "tests/sinks/test_damage.py"
_RETENTION = "tests/sinks/test_retention.py"
_FRAMES, _TURNS = "test_frames_that_are_no_audio_close_the_connection", "test_requests_wait_for_their_turn"
_LONG = "test_long_answers_leave_live_audio_its_time"
_FUZZ = "tests/fuzz/test_fuzz.py::test_s16_no_uncaught_exception_no_hang"
_DOOR = "test_connections_that_come_and_go_wait_at_the_door"

SECURITY = (
    Row("S1", "Loopback by default; beyond it only with a token or `--insecure`", "`api/security.py` check_exposure",
        (f"{_SEC}::test_s1_another_host_needs_a_token_or_insecure", f"{_SEC}::test_s1_loopback_needs_nothing"),
        "13 host spellings", "8 refused, 5 taken"),
    Row("S2", "Origin and Host are this server's, or 403 before the upgrade", "`api/guard.py`",
        (f"{_SEC}::test_s2_a_foreign_origin_is_refused_before_the_upgrade",
         f"{_SEC}::test_s2_a_foreign_host_is_refused_before_the_upgrade"), "21 origins, 20 hosts", "each 403 or 400"),
    Row("S2 proxies",
        "Behind a proxy, and by other names, only as told: `--public-url`, `--allow-host`, which a 403 names; a "
        "token is needed; health checks need no Host", "`api/hosts.py`, `api/guard.py` _fault",
        (f"{_PROXIES}::test_page_changes_and_sockets_through_the_recipe",
         f"{_PROXIES}::test_what_each_proxy_sends_is_let_in",
         f"{_PROXIES}::test_a_foreign_page_stays_out_behind_a_proxy",
         f"{_PROXIES}::test_a_health_check_needs_no_host_of_ours",
         f"{_PROXIES}::test_the_answer_and_the_log_name_the_remedy",
         f"{_PROXIES}::test_who_is_reached_through_a_proxy_needs_a_token",
         f"{_PROXIES}::test_what_clients_say_of_their_address_counts_behind_a_proxy_only",
         "tests/browser/test_proxies.py::test_the_page_is_live_and_changes_settings"),
        "nginx 1.22, Caddy 2.6, HAProxy 2.6, each with and without TLS and path; 7 sets of headers x 3 ways",
        "let in; red before: main.js, PATCH, health and WebSocket each 403, the last without a body"),
    Row("refusals", "HEAD wherever GET; a WebSocket is refused with a reason, in the answer and the log",
        "`api/guard.py`, `transport/connection.py` refuse_upgrade",
        (f"{_REFUSALS}::test_head_is_get_without_its_body",
         f"{_REFUSALS}::test_a_websocket_where_there_is_none_is_told_where_they_are",
         f"{_REFUSALS}::test_too_many_connections_are_told_why",
         f"{_REFUSALS}::test_at_level_info_every_refusal_is_a_line_and_no_token_is_in_it"),
        "20 paths x 2 transports, 5 wrong paths", "as GET; red before: 404, and 403 without a body"),
    Row("S3", "Tokens: header or first message within 5 s, never in a URL; constant time; hashed at rest",
        "`api/security.py` Access, `api/tokens.py`",
        (f"{_SEC}::test_s3_a_bad_token_message_closes_4401", f"{_SEC}::test_s3_anything_else_first_closes_4401",
         f"{_SEC}::test_s3_a_token_in_the_url_is_refused",
         f"{_TOK}::test_s3_tokens_are_hashed_at_rest_and_the_file_is_the_users",
         f"{_TOK}::test_a_token_works_at_once_and_a_revoked_one_is_cut_off"),
        "30 bad tokens, 6 other first messages", "each 4401; the token in no log"),
    Row("S3 open", "Whether it is open is decided at the start; without a token list it admits nobody",
        "`api/security.py` Access",
        ("tests/api/test_open.py::test_s3_a_service_whose_tokens_are_gone_admits_nobody",
         "tests/api/test_open.py::test_s3_an_open_service_never_opens_again",
         "tests/api/test_open.py::test_s3_open_is_decided_at_the_start"),
        "7 ways to lose the list", "each 401 and 4401"),
    Row("S3 guesses", "Wrong tokens of an address are looked at 100 times, then once a second; `KWS_TOKEN` of 16 "
        "characters at least beyond loopback", "`api/security.py` admit, check_exposure",
        (f"{_GUESSES}::test_s3_guesses_are_bounded_and_those_who_were_right_go_on",
         f"{_GUESSES}::test_s3_every_door_counts_guesses",
         f"{_GUESSES}::test_s3_a_token_that_can_be_guessed_is_refused_beyond_this_machine"),
        "2,000 guesses", "at most 200 looked at; those let in before go on"),
    Row("S3 file", "A token file that is empty, damaged or open to others is told at start, with the remedy",
        "`api/tokens.py`, `api/token_advice.py`",
        (f"{_GUESSES}::test_s3_an_empty_token_file_is_told_at_start_with_the_remedy",
         f"{_GUESSES}::test_s3_a_token_file_that_others_can_open_is_remarked"), "3 empty files, 4 modes", "each told"),
    Row("S4 view", "Live view and why need scope view, /metrics metrics; older tokens are named with the remedy",
        "`api/guard.py` scope_of, `api/live_ws.py`, `api/token_advice.py`",
        (f"{_SCOPES}::test_s4_scopes_are_not_part_of_each_other",
         f"{_SCOPES}::test_s4_no_spelling_of_a_path_needs_less",
         f"{_SCOPES}::test_s4_start_and_list_name_the_tokens_that_lost_something_and_the_remedy"),
        "7 spellings, 3 scopes", "as documented"),
    Row("S4 confined", "A token of a stream is told the same whatever others do, ids and measured times apart",
        "`sinks/reader.py`, `sinks/telling.py`, `api/status.py`, `api/views.py`, `engine/evidence.py`",
        ("tests/api/test_confined.py::test_s4_a_confined_token_is_told_the_same_whatever_other_streams_do",)),
    Row("S4 gaps", "So is what the log lacks: a `log_gap` is of the token's own rows, from one of its ids to another",
        "`sinks/telling.py`, `sinks/holes.py` note_forgotten, `sinks/space.py`",
        tuple(f"tests/sinks/test_confined_gaps.py::test_{name}" for name in (
            "it_is_the_same_whatever_others_do", "rows_of_others_that_were_forgotten_are_no_gap",
            "what_was_forgotten_is_known_to_be_ones_own_at_the_next_start",
            "what_a_hanging_commit_shed_is_told_to_whom_it_was", "what_memory_no_longer_keeps_is_told_to_whom_it_was",
            "what_may_be_anybodys_is_told_between_ones_own_rows")),
        "60 logs of rows and holes, with others' rows and without", "the same; before: holes of all streams' ids"),
    Row("S4 exports", "A revoked token breaks off a long answer; an export ends at the id where it began",
        "`api/guard.py` _while_granted, `api/export.py`",
        (f"{_EXPORTS}::test_s4_a_revoked_token_stops_an_answer_under_way",
         f"{_EXPORTS}::test_s4_an_export_ends_at_the_id_where_it_began"), "20,000 rows", "broken off; not one more"),
    Row("S4", "Scopes listen, ingest, view, metrics, admin, and streams, on every route and socket",
        "`api/guard.py`, `api/sockets.py`",
        (f"{_TOK}::test_s4_every_route_for_every_role", f"{_TOK}::test_s4_the_sockets_for_every_role_and_stream",
         f"{_TOK}::test_s4_a_listener_hears_its_streams_only")),
    Row("S5", "Audio <= 256 KiB and 1 s a message, JSON <= 16 KiB and 8 deep, streams and connections limited",
        "`api/query.py`, `wire.py`, `transport/http_protocol.py`",
        (f"{_SEC}::test_s5_bad_audio_closes_4400_and_others_lose_nothing",
         f"{_SEC}::test_s5_streams_and_connections_are_limited",
         f"{_GUESSES}::test_s5_half_a_character_is_a_clear_error")),
    Row("S6", "Slow headers, no token, endless bodies, unread answers, vanished peers: dropped in about 10 s",
        "`transport/peer.py`, `transport/http_protocol.py`, `app.py` bound_socket",
        (f"{_REL}/test_overload.py::test_500_hostile_connections",
         f"{_SEC}::test_s6_one_that_does_not_read_its_answer_is_dropped")),
    *(Row(f"flood {kind}", f"{what}; live latency p99 below 1.5 times", guard, (f"{_REL}/test_floods.py::{test}",))
      for kind, what, guard, test in (
          ("pings", "Pings without a token close 1008", "`transport/websocket_protocol.py` _allowed", _FRAMES),
          ("pings-token", "Pings with a token beyond 2 a second close 1008",
           "`transport/websocket_protocol.py` _allowed", _FRAMES),
          ("texts", "Texts beyond 2 a second close 1008", "`transport/websocket_protocol.py` _allowed", _FRAMES),
          ("short-audio", "Audio in messages of a sample closes 1008",
         "`transport/splitter.py`, `transport/websocket_protocol.py`", _FRAMES),
          ("unauthorised", "Requests beyond 50 a second wait, then 429", "`api/guard.py`", _TURNS),
          ("changes", "Changes beyond 20 a second wait, then 429", "`api/guard.py`", _TURNS),
          ("files", "The page's files beyond 50 a second wait, then 429", "`api/guard.py`", _TURNS),
          ("exports", "Exports are made in slices, in turns", "`api/slices.py`, `api/export.py`", _LONG),
          ("pages", "So are pages of 1000 detections", "`api/slices.py`, `api/export.py`", _LONG),
          ("replays", "So is what a subscriber has missed", "`api/slices.py`, `api/detections_ws.py`", _LONG),
          ("connections", "New connections come in 16 at a time, then 100 a second of an address",
           "`transport/batching.py`, `app.py`, `transport/http_protocol.py`", _DOOR))),
    Row("counted", "The connections of an address are counted from accept to close, also where they end in a reset",
        "`transport/peer.py`, `transport/http_protocol.py`, `transport/websocket_protocol.py`",
        ("tests/transport/test_counted.py::test_a_reset_within_the_handshake_leaves_nothing_counted",
         "tests/transport/test_counted.py::test_a_reset_at_any_moment_leaves_nothing_counted",
         "tests/transport/test_counted.py::test_one_that_has_reset_before_it_is_looked_at_counts_as_its_address"),
        "20 resets within the handshake, 75 (`make proof`: 1,500) at any moment", "0 left counted; 20 of 20 before"),
    Row("places", "Nobody takes all places of viewers or subscribers, nor keeps newcomers out by opening and closing",
        "`api/places.py`, `api/ingest.py`, `engine/admission.py`, `engine/slots.py`",
        ("tests/api/test_places.py::test_one_token_leaves_places_for_others",
         "tests/api/test_places.py::test_who_has_none_finds_one_until_all_are_taken",
         "tests/api/test_places.py::test_opening_and_closing_a_stream_locks_nobody_out",
         "tests/engine/test_admission.py::test_a_stream_that_has_left_is_forgotten_at_once"),
        "3 tokens for 32 places; 10 newcomers (`make proof`: 200) beside 100 openings a second",
        "16, 8 and 4 places, 4429 then, each newcomer let in; one token took all 64, newcomers were refused"),
    Row("pipelined", "At most 64 KiB are kept behind the request in hand", "`transport/http_protocol.py`",
        (f"{_REL}/test_floods.py::test_pipelined_requests_wait_in_the_kernel",
         "tests/transport/test_budget.py::test_behind_a_request_little_is_kept",
         "tests/transport/test_budget.py::test_a_body_that_nobody_reads_is_not_taken_in")),
    Row("S6 half-open", "A peer that vanishes without a word is noticed in about 10 s", "`app.py` bound_socket",
        (f"{_REL}/test_overload.py::test_a_peer_whose_packets_vanish_is_noticed",)),
    Row("S7", "Names match one pattern; no path leaves the page", "`messages.py` check_name",
        (f"{_SEC}::test_s7_traversal_in_every_place_that_takes_a_name", f"{_SEC}::test_s7_bad_parameters_close_4400",
         f"{_SEC}::test_s7_no_path_leaves_the_page")),
    Row("S8", "Models: no pickle, capped, digest checked, no links or external data, self-tested before use",
        "`backends/model_bytes.py`, `manifest/folder.py`, `engine/lane.py` swap",
        (f"{_REL}/test_swap.py::test_s8_a_bad_model_is_refused_and_the_old_one_keeps_serving",
         "tests/conformance/test_bad_models.py::test_external_data_in_other_spellings_is_refused")),
    Row("S8 trial", "A reload loads and tests the model in a process of its own first, with limits; regular files only",
        "`commands/trial.py`, `manifest/regular_file.py`, `api/routes/models.py` _aside",
        (f"{_REL}/test_trial.py::test_s8_one_that_never_returns_is_given_up",
         f"{_REL}/test_trial.py::test_s8_one_that_takes_all_memory_is_given_up",
         f"{_REL}/test_trial.py::test_s8_only_regular_files_are_opened",
         f"{_REL}/test_trial.py::test_s8_sigterm_ends_a_service_that_is_loading_such_a_model"),
        "a loop of 2**62 turns, one that grows, 6 paths that are no files",
        "each 422, SIGTERM ends the service; no answer and no end before"),
    Row("S9", "Serial packets: bounded, CRC, resynchronise", "`kws_board/packets.py`, `firmware/`",
        ("tests/board/test_packets.py::test_random_bytes_do_not_confuse_the_board",)),
    Row("S9 images", "The board opens no image with a field its layer does not have, nor a packet that is too long",
        "`firmware/core/kws_image.c`, `firmware/core/kws_board.c`",
        ("tests/board/test_firmware.py::test_what_a_layer_does_not_have_is_not_brought_near",
         "tests/board/test_firmware.py::test_words_of_the_header_without_a_meaning_are_zero",
         "tests/board/test_packets.py::test_a_payload_beyond_the_largest_is_refused",
         "tests/board/test_fuzz_firmware.py::test_s9_made_up_images_and_packets_stay_inside"),
        "6 fields of every kind of layer with 3 sizes of near memory, 4 words, 4 sizes of a PING, 2,000 made-up inputs",
        "each refused under sanitizers; all taken before"),
    Row("S12", "One JSON object a log line, control characters escaped, credentials masked", "`host/log_format.py`",
        (f"{_TOK}::test_s12_a_hostile_name_cannot_forge_a_line", f"{_TOK}::test_s12_credentials_are_masked")),
    Row("S12 garbage", "Log lines of one kind come 20 at once, then one in 10 s, those left out are counted",
        "`host/log_format.py` Sparing",
        ("tests/host/test_log_format.py::test_s12_garbage_makes_few_lines",
         "tests/host/test_log_format.py::test_what_was_left_out_is_counted"),
        "400 requests that are none", "at most 40 lines; 400 before"),
    Row("S13", "CORS off; CSP `default-src 'none'`; nosniff; Permissions-Policy; API answers `no-store`",
        "`api/guard.py` HEADERS",
        (f"{_SEC}::test_s13_every_answer_carries_the_headers", f"{_GUESSES}::test_s13_answers_of_the_api_are_not_kept",
         "tests/browser/test_page.py::test_hostile_labels_stay_text"),
        "20 hostile labels in Chromium", "inert; 0 violations"),
    Row("S14", "Audio is not stored", "nothing writes it",
        (f"{_TOK}::test_s14_audio_is_not_stored",)),
    Row("S15", "TLS >= 1.2; the container without root", "`app.py` Server, `docker/Dockerfile`",
        (f"{_TOK}::test_s15_tls_from_1_2_up",)),
    Row("S15 limits", "systemd's unit and the compose file: bounded memory, devices and calls, no core dumps",
        "`service/kws-serve.service`, `docker/compose.yaml`, `docker/Dockerfile`",
        ("tests/host/test_systemd.py::test_s15_the_unit_allows_what_the_service_needs_and_no_more",
         "tests/host/test_systemd.py::test_s15_the_container_is_limited"),
        "9 settings of the unit, 6 of the compose file", "all there; 6 and 4 were missing before"),
    Row("secrecy", "No core dump, no debugger; of the service's own token only the hash is kept",
        "`host/secrecy.py`, `commands/own_token.py`, `api/tokens.py` OwnToken",
        ("tests/api/test_secrecy.py::test_s6_the_services_own_token_is_kept_as_a_hash_only",
         "tests/api/test_secrecy.py::test_s6_nobody_but_root_reads_the_memory"),
        "by variable, file and credential", "0 times in memory (2 freed copies of a variable); 5 times before"),
    Row("container",
        "A secret of any system is the token, one that is made is kept and not printed; the health check finds port "
        "and TLS; a neighbour's variables are no settings",
        "`docker/entrypoint.sh`, `commands/health.py`, `config/layers.py` _links",
        (f"{_BOX}::test_a_secret_of_any_system_is_the_token", f"{_BOX}::test_a_secret_that_is_not_there_is_told",
         f"{_BOX}::test_a_token_that_is_made_is_kept_and_never_printed",
         f"{_BOX}::test_the_health_check_finds_port_and_tls",
         f"{_BOX}::test_what_kubernetes_says_of_its_neighbours_is_no_setting",
         f"{_BOX}::test_the_image_gets_every_file_that_it_copies"),
        "5 spellings of a secret, 4 ways to listen, 2 services' variables; image built and run 5 ways by buildah, once",
        "as promised; red before: a CR in the token, one printed, another port asked, start refused, no image"),
    Row("TLS, clients", "Certificates are verified; one that is not trusted gets no token and ends the client",
        "`client/service.py`, `host/watch.py`",
        ("tests/api/test_tls.py::test_audio_and_detections_through_tls_verified_by_default",
         "tests/api/test_tls.py::test_a_certificate_that_nobody_vouches_for_is_refused_at_once",
         "tests/api/test_tls.py::test_a_trusted_certificate_of_another_name_is_refused",
         "tests/api/test_tls.py::test_a_watched_server_without_a_trusted_certificate_is_not_told_the_token",
         "tests/browser/test_client.py::test_both_ways_through_tls"),
        "https, wss; untrusted, another name", "heard to the sample; refused"),
    *(Row(f"S16 {name}", f"Fuzzed: {what}", where, (f"{_FUZZ}[{name}]",))
      for name, what, where in (
          ("websocket", "WebSocket messages", "`wire.py`"), ("query", "query parameters", "`api/query.py`"),
          ("pcm", "binary audio", "`core/pcm.py`"), ("manifest", "model.json", "`manifest/folder.py`"),
          ("config", "the TOML config", "`config/layers.py`"), ("wav", "audio files' headers", "`sources/files.py`"),
          ("tflite", "TFLite files for the board", "`kws_board/compiler.py`"),
          ("onnx", "ONNX files", "`backends/onnx_file.py`"), ("serial", "serial packets", "`kws_board/packets.py`"),
          ("tokens", "the token file", "`api/tokens.py`"))),
    Row("RFC 6455", "WebSockets by the book under the shipped settings (Autobahn's sections 1-7 and 10, our own cases)",
        "`transport/websocket_protocol.py`, uvicorn, websockets",
        ("tests/transport/test_rfc6455.py::test_6_what_is_no_utf_8_fails_the_connection",
         "tests/transport/test_rfc6455.py::test_1_messages_of_every_size_come_back"),
        "219 cases", "all as they should be"),
    Row("OpenAPI", "Every answer is as the OpenAPI document says", "`api/schemas/`",
        ("tests/api/test_schemathesis.py::test_every_answer_is_as_documented",)),
)  # fmt: skip

DELIVERY = (
    Row("commit before push", "What is pushed with `durable: true` is on the disk", "`sinks/writer.py`",
        (f"{_LOG}::test_what_is_handed_on_is_on_the_disk",), "50 detections", "seen by another connection at the push"),
    Row("not held up", "Scores and gaps do not wait for a commit; a stream's `done` waits for its detections",
        "`sinks/delivery.py`, `sinks/event_log.py`",
        ("tests/sinks/test_delivery.py::test_scores_and_gaps_do_not_wait_for_a_commit_and_detections_do",
         "tests/sinks/test_delivery.py::test_what_does_not_wait_is_in_order_itself"),
        "the file locked by another connection", "all scores and the gap before the first detection"),
    Row("uid", "A retry is the same event; an id is never given twice", "`sinks/numbering.py`, `sinks/log_file.py`",
        (f"{_LOG}::test_the_same_event_twice_is_one",
         f"{_LOG}::test_retention_by_age_and_size_forgets_the_oldest_and_says_so"), "2,000 rows", "none twice"),
    Row("resume, subscribers", "`after=ID`: contiguous ids, or a `log_gap`", "`api/detections_ws.py`, `sinks/holes.py`",
        (f"{_REL}/test_subscribers.py::test_random_disconnects_leave_no_hole",
         f"{_LOG}::test_a_subscriber_joins_without_a_hole", "tests/sinks/test_holes.py::test_holes_are_cut_exactly")),
    Row("another log", "An id of another log, or not given yet, is told as `reset`, and all of this log follows",
        "`sinks/event_log.py` start_after, `sinks/reader.py`, `api/export.py`, `api/detections_ws.py`",
        tuple(f"tests/api/test_another_log.py::test_{name}" for name in (
            "after_an_id_of_another_log_it_begins_anew_and_says_so", "after_an_id_of_this_log_it_goes_on",
            "a_subscriber_is_told_and_gets_all_of_it", "exports_begin_anew_too", "the_client_goes_on_in_the_new_log",
            "a_confined_token_is_told_of_its_own_ids_only")),
        "6 ways to ask, 11 questions", "all of it; before: `[]`, and silence, for ever"),
    Row("end of a sound", "`at` of an end is the wall time of `end_s`, `start_at` that of the onset, in old logs too",
        "`engine/dressing.py`, `messages.py` Detection, `sinks/schema.py`",
        ("tests/engine/test_engine.py::test_the_end_of_a_sound_is_at_its_own_time",
         f"{_LOG}::test_ends_of_older_logs_are_at_their_own_time"),
        "a sound of 6 s, 5 rows of an old log", "5.6 s apart; 0.02 s before"),
    Row("settings of a stream", "A stream's own detector settings act on it alone, and are kept by its name",
        "`core/detector_rules.py`, `engine/live_settings.py`, `api/routes/models.py`",
        ("tests/core/test_detector.py::"
         "test_a_stream_with_settings_of_its_own_and_its_neighbours_do_not_touch_each_other",
         *(f"tests/engine/test_stream_settings.py::test_{name}" for name in (
             "they_act_live_on_this_stream_only_and_null_inherits",
             "a_stream_that_comes_later_has_its_own_and_leaves_them_behind_in_its_slot")),
         "tests/api/test_stream_settings.py::test_they_are_kept_by_name_through_a_restart",
         "tests/api/test_stream_settings.py::test_s4_a_token_of_some_streams_sees_its_own_only"),
        "made-up scores of 3 streams with 3 settings, any cut", "each as it is alone"),
    Row("slow subscriber", "Queue of 1024 messages or 1 MiB, then 4408 with the last id", "`sinks/subscribers.py`",
        ("tests/api/test_streams.py::test_a_slow_subscriber_is_closed_4408_with_its_last_id",), "60,000 detections",
        "closed 4408, the last id right"),
    Row("resume, ingest", "`ack`, `resume`, `epoch`; a client's ring of 10 s",
        "`api/audio_socket.py`, `client/audio_sender.py`",
        (f"{_REL}/test_resume.py::test_a_connection_cut_at_random_changes_nothing",
         f"{_REL}/test_resume.py::test_audio_that_the_clients_ring_has_lost_is_an_exact_gap"),
        "12 s of audio, cut at every seventh message", "the detections of the uncut stream, to the sample"),
    Row("resume, refused", "A refused connection changes nothing: what waits or was left goes on, and is told once",
        "`api/audio_ws.py`, `api/audio_socket.py`, `engine/engine.py` open_stream",
        (f"{_REL}/test_resume.py::test_a_resume_that_was_refused_once_goes_on_at_the_next_try",
         f"{_REL}/test_resume.py::test_a_waiting_stream_outlives_a_newcomer_that_is_refused",
         f"{_REL}/test_resume.py::test_one_that_comes_back_after_its_stream_has_ended_goes_on"),
        "refused 3 times after a restart, a newcomer, a late client", "one epoch, to the sample"),
    Row("resume, gaps", "A resume tells of a gap of a day at most: what is lost counts in sums that all share",
        "`api/audio_socket.py`, `api/ingest.py` MAX_GAP_S",
        (f"{_REL}/test_resume.py::test_a_gap_that_is_beyond_belief_is_refused",),
        "2**53 - 1 samples, a day and a second", "each 4400; totals of 5.6e11 s before"),
    Row("owners", "A waiting stream is for who knows its epoch or holds its token, also after a restart; a source's "
        "name is the server's",
        "`api/audio_socket.py`, `engine/engine.py` reserved",
        (f"{_REL}/test_owners.py::test_a_waiting_stream_is_not_for_another_token",
         f"{_REL}/test_owners.py::test_after_a_restart_a_stream_waits_for_its_own_token",
         f"{_REL}/test_owners.py::test_an_epoch_that_was_overheard_takes_no_live_stream_away",
         f"{_REL}/test_owners.py::test_the_name_of_a_source_is_the_servers_own_also_while_it_is_unplugged"),
        "4 newcomers 3 times each, a thief of a live stream, an unplugged microphone",
        "each 4409, the owner goes on to the sample; all had the stream or name before"),
    Row("clients retry", "Final are 4400, 4401 and 4403; all else is tried again, with pauses that grow, and told once",
        "`client/retries.py`, `frontend/kws-client.js`",
        ("tests/api/test_client_retries.py::test_what_may_go_better_later_is_tried_again",
         "tests/api/test_client_retries.py::test_the_pauses_grow_while_it_is_refused",
         "tests/api/test_client_retries.py::test_a_stream_that_is_sent_away_goes_on_and_nothing_is_told_twice",
         "tests/browser/test_client.py::test_the_pauses_grow_while_it_is_refused",
         "tests/browser/test_client.py::test_a_stream_that_is_sent_away_goes_on_and_nothing_is_told_twice"),
        "7 refusals, each refused 3 times; sent away 3 times in 6 s", "one epoch, to the sample"),
    Row("beginning", "A segment is heard from its first patch hop on; its step fires nothing",
        "`engine/scorer.py`, `core/detector.py` _settled",
        ("tests/engine/test_engine.py::test_a_segment_begins_as_if_zeros_had_gone_before",
         "tests/integration/test_short_files.py::test_a_short_file_is_found_as_it_is_after_silence",
         "tests/integration/test_short_files.py::test_a_stream_that_begins_at_full_level_fires_nothing_for_it"),
        "110 short files, 218 steps", "found as after 2 s of zeros; at most 2 fire"),
    Row("standing alone", "With `isolation` a word amid talk is not told; over television, music and noise it is",
        "`core/surroundings.py`, `core/detector.py` muted",
        ("tests/core/test_surroundings.py::test_a_word_after_silence_counts_and_one_in_talk_does_not",
         "tests/core/test_surroundings.py::test_over_a_television_music_and_noise_it_counts",
         "tests/core/test_surroundings.py::test_equals_the_slow_reading_for_any_cut",
         "tests/engine/test_isolation.py::test_however_the_audio_is_cut"),
        "made-up scores, any cut", "as read slowly from the rule"),
    Row("second look",
        "With `verify` a second model's agreement decides in audio time; where it fails or falls behind it has no veto",
        "`engine/proposals.py`, `engine/verifier.py`, `engine/past_patches.py`",
        ("tests/engine/test_verify.py::test_any_model_verifies_any_other_by_the_rule",
         "tests/engine/test_verify.py::test_however_the_audio_is_cut",
         "tests/engine/test_verify.py::test_in_company_as_alone",
         "tests/engine/test_verify.py::test_a_verifier_that_fails_vetoes_nothing",
         "tests/engine/test_verify.py::test_one_that_falls_behind_vetoes_nothing_and_delays_no_tick",
         "tests/api/test_verified.py::test_live_as_from_a_file"),
        "9 pairs of models, any cut, 2 faults", "as read slowly from the rule; told, `verified: null`"),
    Row("arming", "With `armed_by` a label counts only shortly after another one, in audio time; circles are refused",
        "`core/arming.py`, `core/detector.py` _is_armed, `engine/arming_order.py`",
        ("tests/engine/test_armed.py::test_a_label_counts_only_shortly_after_another_one",
         "tests/engine/test_armed.py::test_however_the_audio_is_cut",
         "tests/engine/test_armed.py::test_in_company_as_alone",
         "tests/engine/test_armed.py::test_over_a_gap_in_audio_time",
         "tests/engine/test_armed.py::test_what_is_not_there_or_waits_for_itself_is_refused"),
        "4 kinds of models that arm, any cut", "as read slowly from the rule"),
    Row("pace",
        "A client that is held back has its pings answered; free streams are computed in the time that live ones "
        "leave, and drop nothing", "`api/audio_door.py`, `engine/turns.py`",
        (f"{_PACE}::test_pings_are_answered_while_a_stream_is_held_back",
         f"{_PACE}::test_what_is_held_is_heard_in_order_to_the_end", f"{_PACE}::test_what_is_held_has_a_bound",
         f"{_PACE}::test_one_that_leaves_in_order_is_heard_to_its_last_sample",
         f"{_PACE}::test_free_is_computed_as_fast_as_it_goes_and_drops_nothing",
         f"{_PACE}::test_beside_free_streams_a_live_one_loses_nothing",
         f"{_PACE}::test_free_streams_take_turns_and_live_ones_always_have_theirs"),
        "4 minutes at once, 5 minutes free, 4 free beside 1 live, 2 transports",
        "all answered, to the sample; red before: closed 1011 after 40 s"),
    Row("overload", "Bounded inbox of 2 s a stream, oldest dropped, told and counted to the sample",
        "`engine/stream.py`",
        (f"{_REL}/test_overload.py::test_three_times_too_much_is_accounted_to_the_sample",
         f"{_REL}/test_overload.py::test_one_hot_stream_harms_no_other")),
    Row("admission", "No further stream is taken that the engine could not carry: 4429",
        "`engine/admission.py`, `engine/engine.py`",
        (f"{_REL}/test_overload.py::test_too_many_are_refused_and_the_others_do_not_suffer",)),
    Row("device unplugged", "Noticed in <= 1 s, tried again with growing pauses, a new epoch on return",
        "`sources/supervisor.py`", (f"{_MIC}::test_unplugged_again_and_again_leaks_nothing",
                                    f"{_MIC}::test_an_unplugged_device_is_noticed_and_comes_back_as_a_new_epoch")),
    Row("audio encodings", "What ffmpeg, SoX and libsndfile write, to a file or a pipe: the reference's detections, "
        "or one clear line where none is read", "`audio/decoder.py`, `audio/lengths.py`, `audio/containers.py`",
        ("tests/campaigns/test_encodings.py::test_each_encoding_gives_the_references_detections_or_one_clear_line",)),
    Row("board reset", "Resent; on the CPU after 3 resets a minute, said aloud",
        "`kws_board/board.py`, `kws_board/slots.py`, `backends/gap8.py`",
        ("tests/board/test_board.py::test_resets_lose_no_result",)),
    Row("clock jump", "Samples are the truth, wall time an annotation", "`engine/stream.py`, `sinks/writer.py`",
        (f"{_REL}/test_clock.py::test_the_wall_clock_jumps_an_hour",)),
    Row("wrong clock", "Rows go for their own age only, after an hour of a steady clock; each deletion is logged",
        "`sinks/clock_guard.py`, `sinks/expiry.py`",
        (f"{_REL}/test_clock.py::test_a_clock_that_is_wrong_at_the_start_deletes_nothing",
         f"{_RETENTION}::test_the_clock_is_believed_after_an_hour_in_which_both_agreed_and_never_else",
         f"{_RETENTION}::test_only_rows_that_are_old_themselves_go_and_each_missing_id_is_told"),
        "1970, 100 days ahead, one row of 1970; 500 random sequences of looks", "0 rows; as an oracle says"),
    Row("backup", "A restored backup tells exactly what it lacks, or is another log; no id means two things",
        "`sinks/given.py`, `sinks/log_file.py` _compare_ids",
        tuple(f"tests/sinks/test_backup.py::test_{name}" for name in (
            "restored_elsewhere_it_is_another_log_without_a_gap",
            "restored_in_its_place_what_it_lacks_is_told_exactly", "a_copy_of_the_stopped_services_file_is_whole",
            "a_copy_of_all_files_goes_on_as_the_same_log", "a_copy_of_the_running_services_file_alone_opens")),
        "6 copies", "a gap of the 30 ids it lacks, or none; before: of 1,000,000"),
    Row("retention", "What is due to go is found by an index and deleted in parts, between which commits go on",
        "`sinks/expiry.py`, `sinks/space.py`",
        (f"{_RETENTION}::test_commits_do_not_wait_for_a_deletion", f"{_RETENTION}::test_no_look_reads_all_rows"),
        "2,000 rows, 2 ways to go", "250 rows at once at most; before: 5,000, and a scan of all"),
    Row("disk full", "Detections go on, `durable: false`; written on recovery or told as `log_gap`; not ready",
        "`sinks/writer.py`, `sinks/waiting.py`, `sinks/log_file.py`",
        (f"{_REL}/test_disk_full.py::test_detections_go_on_and_are_written_when_there_is_room",
         f"{_REL}/test_disk_full.py::test_beyond_what_memory_keeps_the_rest_is_a_told_gap",
         f"{_REL}/test_disk_full.py::test_the_service_on_a_full_disk_and_killed_there"),
        "a real file system of 1 MiB", "every detection pushed, every id once, `integrity_check` ok"),
    Row("log damaged",
        "A file damaged while it is open, or found so, is noticed, salvaged and kept aside; lost ids are a "
        "`log_gap` (`damaged`); live goes on, not durable and not ready meanwhile",
        "`sinks/salvage.py`, `sinks/mending.py`, `sinks/log_file.py`, `sinks/writer.py`",
        (f"{_DAMAGE}::test_a_damaged_file_is_noticed_salvaged_and_set_aside",
         f"{_DAMAGE}::test_what_a_start_finds_damaged_is_salvaged_too",
         f"{_REL}/test_log_lost.py::test_what_cannot_be_read_is_an_answer"),
        "8 kinds of damage to 2,050 rows", "each id there or told; at most 4 log lines, 503 and 4429"),
    Row("log removed",
        "A file or folder that is removed, moved or replaced under the service is never taken for durable: written "
        "again at its place with all rows, or not ready", "`sinks/identity.py`, `sinks/log_file.py`",
        (f"{_DAMAGE}::test_a_file_that_is_no_longer_there_is_noticed_and_written_again",
         f"{_DAMAGE}::test_a_removed_file_is_noticed_though_nothing_comes",
         f"{_REL}/test_log_lost.py::test_meanwhile_it_is_not_ready_and_live_goes_on"),
        "6 ways, 610 rows", "all there at the next start; before: none, and `durable`"),
    Row("SIGTERM", "Stop accepting, flush, commit, close 1012, exit 0 in <= 5 s", "`commands/running.py`",
        (f"{_REL}/test_restart.py::test_nothing_is_lost_or_told_twice",
         f"{_REL}/test_restart.py::test_sigterm_says_1012_and_flushes_first")),
    Row("output not taken", "Ctrl-S, a full pipe: detections go on, SIGTERM ends it; dropped lines are counted",
        "`host/printer.py`",
        ("tests/commands/test_terminal.py::test_detections_go_on_and_sigterm_ends_it",
         "tests/commands/test_terminal.py::test_read_again_it_says_how_many_lines_were_dropped",
         "tests/host/test_printer.py::test_what_is_printed_and_what_is_dropped_are_all_in_order"),
        "a stopped and a full pty, a full stdout, a full stderr", "every detection; exit 0"),
    Row("SIGHUP",
        "With a terminal as SIGTERM; else tokens, certificate and thresholds are read again, all or none; what needs "
        "a restart is listed", "`host/stop_signal.py`, `commands/reloading.py`",
        (f"{_HUP}::test_tokens_certificate_and_thresholds_are_read_again",
         f"{_HUP}::test_where_something_is_wrong_nothing_changes", f"{_HUP}::test_what_needs_a_restart_is_listed",
         f"{_HUP}::test_an_open_service_closes_with_a_token_and_never_opens_again",
         f"{_HUP}::test_with_a_terminal_it_winds_down_unless_nohup_says_otherwise"),
        "6 kinds of faults, a terminal that closes, nohup", "as promised; red before: exit by signal 1"),
    Row("as users type",
        "Free ports, homes, byte order marks, encrypted keys and unknown commands: as meant, or told in a line; "
        "`status` finds its service", "`commands/status.py`, `commands/certificate.py`, `cli.py`, `config/layers.py`",
        (f"{_TYPE}::test_two_services_on_any_free_port_have_a_log_each",
         f"{_TYPE}::test_status_asks_where_the_service_listens",
         f"{_TYPE}::test_status_knows_the_services_own_certificate_and_no_other",
         f"{_TYPE}::test_an_encrypted_key_is_refused_and_nobody_is_asked",
         f"{_TYPE}::test_a_tilde_is_the_home_folder_wherever_a_path_stands",
         f"{_TYPE}::test_a_byte_order_mark_is_no_part_of_a_file",
         f"{_TYPE}::test_an_unknown_command_is_told_with_what_is_meant"),
        "3 services, 4 hosts, 11 words", "as promised; red before: 18 of 21 cases"),
    Row("kill -9", "The same without politeness", "`sinks/store.py`, `sinks/positions.py`, `engine/resumed.py`",
        (f"{_REL}/test_restart.py::test_nothing_is_lost_or_told_twice",)),
    Row("model swap", "Loaded and self-tested aside, switched between patches, rolled back if bad",
        "`engine/lane.py` swap",
        (f"{_REL}/test_swap.py::test_swaps_under_load_lose_nothing",
         f"{_REL}/test_swap.py::test_one_that_fails_on_its_first_patches_is_rolled_back")),
    Row("a fault of ours",
        "An unexpected exception costs no other lane or stream its events, and no stream its end; it is counted",
        "`engine/tick.py`, `engine/lane.py`",
        tuple(f"tests/engine/test_tick_faults.py::test_{name}" for name in (
            "a_fault_in_one_lane_costs_the_others_nothing", "a_lane_goes_on_after_a_fault",
            "a_fault_in_one_stream_costs_the_others_nothing")),
        "a backend, detector, front end, reset, resampler", "the others' events as without; before: all lost"),
    Row("reload, late", "A reload that is refused or not done in time is not done later, and closed",
        "`engine/models.py` apply_swaps, `api/routes/models.py` swapped",
        ("tests/engine/test_tick_faults.py::test_a_reload_that_is_not_done_in_time_does_not_happen_later",
         "tests/engine/test_tick_faults.py::test_a_reload_that_fails_is_told_and_the_old_model_goes_on"),
        "no tick for 0.05 s, a fault in the swap", "422, and the old model"),
    Row("followers", "One who follows counts from the beginning of its replay on; beyond 1,000 it is 4429",
        "`api/detections_ws.py`, `api/places.py`",
        ("tests/api/test_counted.py::test_followers_count_from_the_beginning_of_their_replay",),
        "10 at once where 3 may, 20,000 rows each", "7 refused; before: none"),
    Row("bounded inboxes",
        "What a hanging commit holds up is bounded, the rest a told gap; so is what a client does not take",
        "`sinks/writer.py` _shed_oldest, `client/audio_sender.py`, `frontend/kws-client.js`",
        (f"{_LOG}::test_what_the_disk_holds_up_is_bounded_and_told",
         "tests/api/test_counted.py::test_what_a_client_does_not_take_is_bounded_and_counted"),
        "250 for 100; 2 s of scores for 20", "a `log_gap` of 150 ids; `skipped`"),
    Row("live state",
        "A viewer is told which stream of the name is open, also when one before it ends later; positions are noted "
        "within 0.25 s though nothing is detected; a board's status outlives a reload",
        "`engine/viewers.py`, `sinks/positions.py`, `backends/board_use.py`",
        ("tests/api/test_counted.py::test_one_that_ends_does_not_hide_another_of_its_name",
         f"{_LOG}::test_positions_are_noted_though_nothing_is_detected",
         "tests/board/test_backend.py::test_a_reloaded_model_keeps_the_hop_in_force"),
        "a stream, a position, a reload each", "`live`; noted; listed"),
    Row("second backend",
        "It touches neither the first's results nor its time; what is not compared is counted and told",
        "`engine/twin.py`",
        ("tests/engine/test_twin.py::test_one_that_never_answers_delays_nothing",
         "tests/engine/test_twin.py::test_one_that_fails_fails_alone_and_that_is_counted_and_told",
         "tests/engine/test_twin.py::test_what_it_is_behind_with_is_left_out_counted_and_told"),
        "one that never answers, three kinds of faults", "the scores of the first alone, bit by bit"),
    Row("watchdog", "systemd's watchdog is fed by real progress only", "`commands/running.py` progress",
        ("tests/host/test_systemd.py::test_a_hung_engine_starves_the_watchdog",), "a hung backend", "starved"),
)  # fmt: skip

HEAD = """# Guarantees

*Contiguity or an explicit gap, never a silent hole; and no one hears what they may not.* Each line: the promise, where
it is kept, the test that tries it, how often, and what was measured. `make test` takes about a twentieth of the counts,
`make proof` all of them and writes this page; `make mutants` takes each guard away and wants its test to fail.

{when}
*Stale* stands where a file that guards the promise has changed since; a row with a date of its own was tried again
then, alone (`python -m tests.campaigns.guarantees --again ROW`).

Where a time stands, it is of that machine at that moment; the tests themselves assert none.
"""


_LIVE, _VIEWS = "tests/api/test_live.py", "tests/browser/test_views.py"

THE_PAGE = (
    Row(
        "page",
        "Left open at 30 detections a minute: memory flat, frames in time",
        "`frontend/live.js`, `frontend/alerts.js`",
        ("tests/browser/test_endurance.py::test_the_page_stays_small_and_smooth",),
    ),
    Row(
        "away",
        "After a lost connection each detection is shown once, and how many were fetched",
        "`frontend/kws-client.js`, `frontend/alerts.js`",
        (
            f"{_VIEWS}::test_away_and_recovered_are_told",
            "tests/browser/test_page.py::test_after_a_restart_the_page_goes_on_and_shows_each_detection_once",
        ),
        "a restart with 3 missed, one with none",
        "each once",
    ),
    Row(
        "browser's microphone",
        "A restart of the service costs it nothing",
        "`frontend/kws-client.js` AudioSender",
        (
            f"{_VIEWS}::test_the_microphone_goes_on_through_a_restart_without_a_hole",
            "tests/browser/test_client.py::test_audio_goes_on_after_a_restart_to_the_sample",
        ),
        "a restart each",
        "no hole",
    ),
    Row(
        "page, upgraded",
        "Its files are asked for again, and known by their content; a download has no deadline",
        "`api/page.py`, `frontend/kws-client.js`",
        (
            "tests/api/test_page_files.py::test_each_file_is_asked_for_again_and_known_by_its_content",
            "tests/api/test_page_files.py::test_an_upgrade_that_changes_no_time_and_no_size_is_seen",
            f"{_VIEWS}::test_a_download_takes_as_long_as_it_takes",
        ),
        "every file; 2 exports that last longer than an answer may wait",
        "as promised; red before: no Cache-Control, 304 for changed content, no download",
    ),
    Row(
        "why",
        "The patch, scores and settings that decided; of raw samples the envelope only; memory only",
        "`engine/evidence.py`",
        (
            "tests/engine/test_evidence.py::test_the_patch_and_the_scores_are_those_that_decided_"
            "however_the_stream_was_cut",
            "tests/engine/test_evidence.py::test_of_a_raw_model_only_the_envelope_is_kept",
            f"{_LIVE}::test_why_is_for_those_who_may_hear_the_stream",
        ),
        "25 cuts of streams",
        "equal",
    ),
    Row(
        "watched server",
        "OFF after 3 missed polls, its row stays, told at once",
        "`host/watch.py`",
        (
            "tests/host/test_watch.py::test_a_server_is_off_after_three_missed_polls_keeps_its_row_and_comes_back",
            f"{_VIEWS}::test_another_server_that_goes_down_is_told_at_once",
        ),
        "a server stopped and back",
        "as promised",
    ),
    Row(
        "watched, hostile",
        "One deadline of 2 s and 64 KiB for a watched server's whole answer; every fault is a miss",
        "`host/watch.py`",
        (
            "tests/host/test_watch.py::test_every_fault_is_a_miss",
            "tests/host/test_watch.py::test_what_nobody_has_thought_of_is_a_miss_too",
            "tests/host/test_watch.py::test_one_with_many_streams_is_within_the_bound",
        ),
        "19 kinds of bad answers, 60 streams",
        "each OFF after 3; ON with its streams",
    ),
    Row(
        "accessible",
        "No serious fault that axe-core finds, in every view, light, dark and at 360 px",
        "`frontend/index.html`, `frontend/style.css`",
        ("tests/browser/test_accessible.py::test_axe_finds_no_serious_fault",),
        "7 views x 4",
        "0 serious faults",
    ),
)


SECTIONS = (("Security", SECURITY), ("Delivery", DELIVERY), ("The page", THE_PAGE))
ROWS = tuple(row for _, rows in SECTIONS for row in rows)


def noted() -> tuple[str, dict[str, dict[str, str]]]:
    """When it was measured, and what, by row."""
    found: dict[str, dict[str, str]] = {}
    when = "The full counts have not been run."
    for line in PROOF.read_text().splitlines() if PROOF.exists() else ():
        one = json.loads(line)
        if "commit" in one:
            when = f"Measured at the full counts on {one['date']}, commit {one['commit']}, {one['machine']}."
        else:
            found[one["row"]] = one
    return when, found


def stale() -> list[Row]:
    """Rows that were measured with other files than they have now."""
    measured = noted()[1]
    return [row for row in ROWS if row.row in measured and measured[row.row].get("guards") != row.digest]


def seal() -> None:
    """Note with each measured row what its files are now: to be called where it has just been measured."""
    digests = {row.row: row.digest for row in ROWS}
    lines = [json.loads(line) for line in PROOF.read_text().splitlines()]
    lines = [{**one, "guards": digests[one["row"]]} if one.get("row") in digests else one for one in lines]
    PROOF.write_text("".join(json.dumps(one) + "\n" for one in lines))


def passed(row: Row) -> dict[str, dict[str, str]] | None:
    """What the tests of a row measured at the full counts, by row; None where one failed or was skipped."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "proof.jsonl"
        words = [sys.executable, "-m", "pytest", "-q", "-o", "faulthandler_timeout=7200", *row.tests]
        run = subprocess.run(words, cwd=ROOT, env={**os.environ, "PROOF": "full", "PROOF_LOG": str(log), "KWS_CI": "1"})
        lines = log.read_text().splitlines() if log.exists() else []
    return {one["row"]: one for one in map(json.loads, lines)} if run.returncode == 0 else None


def again(rows: Iterable[Row]) -> list[Row]:
    """Try each of these, and note what was measured, when, and its files' digest; those that did not pass."""
    failed = []
    for row in rows:
        digest, found = row.digest, passed(row)
        if found is None:
            failed.append(row)
            continue
        measured = found.get(row.row, {"row": row.row, "n": row.n, "figure": row.figure})
        new = {**measured, "again": f"{datetime.now(UTC):%F}", "guards": digest}
        lines = [json.loads(line) for line in PROOF.read_text().splitlines()]
        lines = [one for one in lines if one.get("row") != row.row] + [new]
        PROOF.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return failed


def page() -> str:
    """The page as it should be."""
    when, measured = noted()
    old = stale()
    parts = [HEAD.format(when=when)]
    for title, rows in SECTIONS:
        parts.append(f"## {title}\n\n| row | promise | guard | tests | number | measured |\n|---|---|---|---|---|---|")
        for row in rows:
            found = measured.get(row.row, {"n": row.n, "figure": row.figure})
            tests = ", ".join(f"`{t.rpartition('/')[2]}`" for t in row.tests)
            figure = found["figure"] + (f" ({found['again']})" if "again" in found else "")
            figure += " (*stale*)" if row in old else ""
            cells = (row.row, row.promise, row.guard, tests, found["n"], figure)
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts) + TAIL


TAIL = """
## What belongs to parts that do not exist yet

Webhooks (outgoing URLs) and media URLs: neither is built, so no guard is either.

## What is not promised

- A board or a disk that lies: what SQLite was told is on the disk may not be.
- After `kill -9` a `gap` with the reason `restart` is told where a client's ring no longer reaches back to what the log
  knows was processed; the log notes that with each detection and every 5 s, so such a gap can name up to 5 s too much.
- Detections that a stream's own socket did not get while it was cut off are in the log: read them with `after`.
- It is not a safety, medical or security device.
"""


def main(arguments: list[str]) -> int:
    """Write the page; `--check` that nothing is stale, or try rows `--again` before."""
    if arguments == ["--check"]:
        for row in stale():
            print(f"stale: {row.row}: {row.guard} is not what was measured; run make proof")
        return 1 if stale() else 0
    failed = []
    if arguments == ["--seal"]:
        seal()
    elif arguments[:1] == ["--again"]:
        failed = again(row for row in ROWS if row.row in arguments[1:])
    PAGE.write_text(page())
    for row in failed:
        print(f"failed: {row.row}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
