"""Take each guard away in turn: the test of its row must then fail. `make mutants`

    python -m tests.campaigns.mutants [ROW...]

Works on a copy of the packages, so that nothing here is touched. A guard whose absence no test notices is told, and the
exit status is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """A guard: what stands in the file, what would stand there without it, and the tests that must notice."""

    row: str
    file: str
    guard: str
    without: str
    tests: str  # pytest's arguments


_S = "service/kws_serve/"
_SECURITY, _TOKENS = "tests/api/test_security.py", "tests/api/test_tokens.py"
_LIVE, _OPEN = "tests/api/test_live.py", "tests/api/test_open.py"
_GUESSES, _SCOPES = "tests/api/test_guesses.py", "tests/api/test_scopes.py"
_CONFINED, _EXPORTS = "tests/api/test_confined.py", "tests/api/test_exports.py"
_GAPS = "tests/sinks/test_confined_gaps.py"
_PROXIES = "tests/api/test_proxies.py"
_REFUSALS, _HUP = "tests/api/test_refusals.py", "tests/host/test_hang_up.py"
_TYPE = "tests/commands/test_as_users_type.py"
_PACE = "tests/api/test_pace.py"
_BOX = "tests/commands/test_container.py"
_BUDGET = "tests/transport/test_budget.py"
_LOG = "tests/sinks/test_event_log.py"
_RETENTION = "tests/sinks/test_retention.py"
_TERMINAL = "tests/commands/test_terminal.py"
_RETRIES = "tests/api/test_client_retries.py"
_RESUME = "tests/reliability/test_resume.py"
_WATCH = "tests/host/test_watch.py"
_SECRECY = "tests/api/test_secrecy.py"
_TRIAL = "tests/reliability/test_trial.py"
_PLACES = "tests/api/test_places.py"
_OWNERS = "tests/reliability/test_owners.py"
_VERIFY, _ARMED = "tests/engine/test_verify.py", "tests/engine/test_armed.py"

MUTANTS = (
    Mutant("S1", _S + "api/security.py", "if host and not own and not", "if False and not",
           f"{_SECURITY} -k s1"),
    Mutant("S2", _S + "api/guard.py", '(names.count("host") != 1 or not', '(names.count("host") != 1 and not',
           f"{_SECURITY} -k s2"),
    Mutant("S2", _S + "api/guard.py", 'if names.count("origin") > 1 or not', 'if names.count("origin") > 1 and not',
           f"{_SECURITY} -k s2"),
    Mutant("S2 proxies", _S + "api/hosts.py", "in (self.own_origin(host), *map(origin_of, self.public_urls))",
           "in (self.own_origin(host), *map(origin_of, self.public_urls)) or bool(self.public_urls)",
           f"{_PROXIES} -k foreign_page"),
    Mutant("S2 proxies", _S + "api/hosts.py", "(*self._public_names, *(name.lower() for name in self.allow_hosts))",
           "()", f"{_PROXIES} -k needs_a_token"),
    Mutant("S2 proxies", _S + "api/guard.py", 'scope["path"] in PUBLIC_PATHS\n        if not', "True\n        if not",
           f"{_PROXIES} -k needs_no_host"),
    Mutant("S2 proxies", _S + "app.py", "proxy_headers=bool(options.public_urls or", "proxy_headers=bool(True or",
           f"{_PROXIES} -k counts_behind"),
    Mutant("S2 proxies", _S + "api/hosts.py", "if not _PLAIN_NAME.fullmatch(name):", "if False:",
           f"{_PROXIES} -k no_remedy"),
    Mutant("refusals", _S + "api/guard.py", "            raise _BrokenOff\n        await send(message)",
           "        await send(message)", f"{_REFUSALS} -k head_is_get"),
    Mutant("refusals", _S + "host/log_format.py", "logging.getLogger(name).setLevel(chosen)", "pass",
           f"{_REFUSALS} -k at_level"),
    Mutant("SIGHUP", _S + "commands/reloading.py", "        check_certificate(new.tls_cert, new.tls_key)", "",
           f"{_HUP} -k something_is_wrong"),
    Mutant("SIGHUP", _S + "api/security.py", "self._open = self._open and self._own is None",
           "self._open = self._own is None",
           f"{_HUP} -k never_opens"),
    Mutant("SIGHUP", _S + "host/stop_signal.py", "self._reloads = not has_terminal()", "self._reloads = True",
           f"{_HUP} -k with_a_terminal"),
    Mutant("as users type", _S + "commands/certificate.py", "load_cert_chain(cert, key, passphrase)",
           "load_cert_chain(cert, key)", f"{_TYPE} -k encrypted"),
    Mutant("as users type", _S + "commands/certificate.py", "    context.check_hostname = False",
           "    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE", f"{_TYPE} -k and_no_other"),
    Mutant("page, upgraded", _S + "api/page.py", "hashlib.sha256(content)",
           "hashlib.sha256(str(stat_result.st_mtime_ns).encode())", "tests/api/test_page_files.py"),
    Mutant("page, upgraded", "frontend/kws-client.js", "      clearTimeout(timer);", "",
           "tests/browser/test_views.py -k download_takes"),
    Mutant("pace", _S + "api/audio_door.py", "if own + n > HELD_BYTES or", "if", f"{_PACE} -k has_a_bound"),
    Mutant("pace", _S + "api/audio_door.py", "if not self._held and early_s <= 0:", "if early_s <= 0:",
           f"{_PACE} -k free_is_computed"),
    Mutant("pace", _S + "api/audio_door.py", "            if e.code in SAID_ALL:", "            if False:",
           f"{_PACE} -k leaves_in_order"),
    Mutant("pace", _S + "engine/turns.py", "most = self._most if load < MAX_LOAD else 0", "most = self._most",
           f"{_PACE} -k take_turns"),
    Mutant("pace", _S + "engine/engine.py", 'if kind == "websocket" and live and', 'if kind == "websocket" and',
           f"{_PACE} -k admission"),
    Mutant("container", _S + "config/layers.py", "if k.upper() not in links}", "}", f"{_BOX} -k kubernetes"),
    Mutant("container", _S + "commands/health.py", "parse_args(flags_of(pid))", "parse_args([])", f"{_BOX} -k health"),
    Mutant("S3", _S + "api/security.py", "        return row.grant if row else None", "        return EVERYTHING",
           f"{_SECURITY} -k s3"),
    Mutant("S3", _S + "api/guard.py", 'if b"token=" in scope', 'if b"secret=" in scope', f"{_SECURITY} -k s3"),
    Mutant("S3", _S + "api/tokens.py", 'return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()',
           "return token", f"{_TOKENS} -k hashed"),
    Mutant("S3", _S + "api/sockets.py", "if now != grant:", "if False:",
           f"{_TOKENS} -k revoked"),
    Mutant("S3 open", _S + "api/security.py", "self._open = self.tokens.state() == self._file_at_start",
           "self._open = not self.tokens.rows()", f"{_OPEN} -k between_two"),
    Mutant("S3 open", _S + "api/security.py", "        if self._open and self.tokens is not None:",
           "        self._open = self.token is None and not self._rows()\n        if False:",
           f"{_OPEN} -k admits_nobody"),
    Mutant("S3 open", _S + "api/security.py", "(self.insecure or not self.hosts.exposed)", "True",
           f"{_OPEN} -k lost_between"),
    Mutant("S3 open", _S + "api/security.py", 'token = (text or "").strip()', 'token = text or ""',
           f"{_OPEN} -k blank"),
    Mutant("S3 guesses", _S + "api/security.py", "if key not in self._known and guesses.left",
           "if False and guesses.left",
           f"{_GUESSES} -k bounded"),
    Mutant("S3 guesses", _S + "api/security.py", "if key not in self._known and", "if",
           f"{_GUESSES} -k bounded"),
    Mutant("S3 guesses", _S + "api/sockets.py",
           'access.admit(token, address_of(ws)) if auth["type"]', 'access.grant(token) if auth["type"]',
           f"{_GUESSES} -k every_door"),
    Mutant("S3 guesses", _S + "api/security.py", "own.n_chars < MIN_TOKEN_CHARS", "False", f"{_GUESSES} -k be_guessed"),
    Mutant("S3 file", _S + "api/token_advice.py", "mode & _OTHERS", "False", f"{_GUESSES} -k remarked"),
    Mutant("S3 file", _S + "api/security.py", "            for text in advice(self.tokens):",
           "            for text in ():",
           f"{_SCOPES} -k start_and_list"),
    Mutant("S3 file", _S + "api/tokens.py", 'if cut else f"damaged', 'if False else f"damaged', f"{_GUESSES} -k empty"),
    Mutant("S4 view", _S + "api/live_ws.py", 'converse(ws, access, "view", serve)',
           'converse(ws, access, "listen", serve)',
           f"{_SCOPES} -k part_of"),
    Mutant("S4 view", _S + "api/guard.py", "if pattern.match(path)",
           "if pattern.pattern == path", f"{_SCOPES} -k spelling"),
    Mutant("S4 view", _S + "api/tokens.py", "    if streams and wide:",
           "    if False:", f"{_SCOPES} -k of_all_streams"),
    Mutant("S4 confined", _S + "api/status.py", "    if grant.streams is not None:", "    if False:",
           _CONFINED),
    Mutant("S4 confined", _S + "api/status.py", "service.watched() if grant.streams is None else ()",
           "service.watched()",
           _CONFINED),
    Mutant("S4 confined", _S + "api/views.py", "    if grant.streams is None:", "    if True:", _CONFINED),
    Mutant("S4 confined", _S + "sinks/reader.py", "min(last, self._newest_id(wanted.streams or frozenset()))", "last",
           _CONFINED),
    Mutant("S4 confined", _S + "sinks/delivery.py", "if streams is None else max(", "if True else max(", _CONFINED),
    Mutant("S4 confined", _S + "engine/evidence.py", "KEPT_IN_ALL = 10 * KEPT", "KEPT_IN_ALL = KEPT", _CONFINED),
    Mutant("S4 gaps", _S + "sinks/telling.py", "if stream in self._streams), default", "), default",
           f"{_GAPS} -k forgotten_are_no_gap"),
    Mutant("S4 gaps", _S + "sinks/telling.py", "            self._may_be = self._may_be or hole.reason",
           "            found.append(hole)", f"{_GAPS} -k anybodys_is_told"),
    Mutant("S4 gaps", _S + "sinks/telling.py", "if isinstance(before, Hole) and before.reason == reason:", "if False:",
           f"{_GAPS} -k whatever_others_do"),
    Mutant("S4 gaps", _S + "sinks/space.py", "            note_forgotten(db, filter(None, whose))", "            pass",
           f"{_GAPS} -k forgotten_are_no_gap"),
    Mutant("S4 gaps", _S + "sinks/history.py", " UNION ALL SELECT stream, last FROM lost", "",
           f"{_GAPS} -k next_start"),
    Mutant("S4 exports", _S + "api/guard.py",
           'if message.get("more_body") and', "if False and", f"{_EXPORTS} -k revoked"),
    Mutant("S4 exports", _S + "sinks/reader.py", "if upto is None else upto", "", f"{_EXPORTS} -k where_it_began"),
    Mutant("S5", _S + "wire.py", "        json.dumps(found, ensure_ascii=False).encode()", "        pass",
           f"{_GUESSES} -k half"),
    Mutant("S12 garbage", _S + "host/log_format.py", "    handler.addFilter(Sparing())", "    pass",
           "tests/host/test_log_format.py -k few_lines"),
    Mutant("secrecy", _S + "cli.py", "    forbid_dumps()", "    pass", f"{_SECRECY} -k hash_only and file"),
    Mutant("secrecy", _S + "host/secrecy.py", "prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)", "getpid()", f"{_SECRECY} -k root"),
    Mutant("secrecy", _S + "commands/own_token.py", '    wipe_variable("KWS_TOKEN")', "    pass",
           f"{_SECRECY} -k hash_only and variable"),
    Mutant("secrecy", _S + "api/tokens.py", "        found, at = \"\", 0\n", "        return text\n",
           f"{_SECRECY} -k masked"),
    Mutant("S13", _S + "api/guard.py", "headers = HEADERS if kept else [*HEADERS, NO_STORE]", "headers = HEADERS",
           f"{_GUESSES} -k not_kept"),
    Mutant("S4", _S + "api/guard.py", "if not grant.may(needed):", "if False:", f"{_TOKENS} -k s4"),
    Mutant("S4", _S + "api/sockets.py", "if not grant.may(scope):", "if False:", f"{_TOKENS} -k s4"),
    Mutant("S4", _S + "api/audio_ws.py", "        if not grant.may_touch(query.stream):", "        if False:",
           f"{_TOKENS} -k s4"),
    Mutant("S4", _S + "api/routes/detections.py", "replace(wanted, streams=grant_of(request).streams)", "wanted",
           f"{_TOKENS} -k s4"),
    Mutant("S4", _S + "api/detections_ws.py", "wanted = replace(wanted, streams=grant.streams)", "pass",
           f"{_TOKENS} -k s4"),
    Mutant("S5", _S + "api/query.py", "if len(data) > MAX_MESSAGE_BYTES:", "if False:", f"{_SECURITY} -k s5"),
    Mutant("S5", _S + "wire.py", "if len(text) > MAX_JSON_BYTES:", "if False:", f"{_SECURITY} -k s5"),
    Mutant("S5", _S + "transport/http_protocol.py", "if open_connections[client] > MAX_PER_CLIENT or", "if",
           f"{_SECURITY} -k limited"),
    Mutant("counted", _S + "transport/websocket_protocol.py",
           "self.client, self._peer, http._peer = http.client, http._peer, None",
           'self._peer = ""',
           "tests/transport/test_counted.py -k within_the_handshake"),
    Mutant("counted", _S + "transport/http_protocol.py",
           'name = transport.get_extra_info("peername")', "name = self.client",
           "tests/transport/test_counted.py -k before_it_is_looked"),
    Mutant("places", _S + "engine/slots.py", "            self._load.left(stream)", "            pass",
           "tests/engine/test_admission.py -k by_and_by"),
    Mutant("S6", _S + "transport/peer.py", "self.loop.call_later(UNREAD_S, self.tr",
           "self.loop.call_later(1e6, self.tr",
           f"{_SECURITY} -k s6"),
    Mutant("S6", _S + "transport/http_protocol.py", "elif now_s - self._waiting_since_s > REQUEST_S:", "elif False:",
           "tests/reliability/test_overload.py -k hostile"),
    Mutant("flood pings", _S + "transport/websocket_protocol.py",
           "if opcode == Opcode.PING or self._unknown < 0:", "if False:", f"{_BUDGET} -k before_the_token"),
    Mutant("flood pings-token", _S + "transport/websocket_protocol.py", "if budget.spend(1, now_s) is None or", "if",
           f"{_BUDGET} -k behind_the_token"),
    Mutant("flood texts", _S + "transport/websocket_protocol.py", "(crowded and", "(False and",
           f"{_BUDGET} -k ten_connections"),
    Mutant("flood short-audio", _S + "transport/splitter.py", "if n < SHORT_BYTES and", "if False and",
           f"{_BUDGET} -k very_short"),
    Mutant("flood unauthorised", _S + "api/guard.py", "            await asyncio.sleep(wait_s)", "            pass",
           f"{_BUDGET} -k by_its_size"),
    Mutant("flood changes", _S + "api/guard.py", "        if wait_s is None:", "        if False:",
           f"{_BUDGET} -k told_429"),
    Mutant("flood files", _S + "api/guard.py", "named = grant.name if grant and", "named = grant.name if False and",
           f"{_BUDGET} -k line_of_its_own"),
    Mutant("flood exports", _S + "api/slices.py", "        async with self._turn:", "        if True:",
           f"{_BUDGET} -k take_turns"),
    Mutant("flood exports", _S + "api/slices.py", "if self._busy():", "if False:", f"{_BUDGET} -k take_turns"),
    Mutant("flood pages", _S + "api/export.py", "part = min(ROWS, limit - n)", "part = limit",
           f"{_BUDGET} -k in_turns"),
    Mutant("flood connections", _S + "transport/batching.py", "        if came:", "        if False:",
           f"{_BUDGET} -k door_rests"),
    Mutant("flood connections", _S + "transport/http_protocol.py",
           "        if wait_s:\n            transport.pause_reading()",
           "        if False:\n            pass", f"{_BUDGET} -k new_connections"),
    Mutant("pipelined", _S + "transport/http_protocol.py", "        if not self._holds():", "        if True:",
           f"{_BUDGET} -k behind_a_request"),
    Mutant("pipelined", _S + "transport/http_protocol.py", "if self._taken > BEHIND_BYTES:", "if False:",
           f"{_BUDGET} -k nobody_reads"),
    Mutant("S7", _S + "messages.py", "if not _NAME.fullmatch(name):", "if False:", f"{_SECURITY} -k s7"),
    Mutant("S8", _S + "backends/model_bytes.py", "if digest != file.sha256:", "if False:",
           "tests/reliability/test_swap.py -k s8"),
    Mutant("S8", _S + "manifest/folder.py", "if whole.is_symlink():", "if False:",
           "tests/reliability/test_swap.py -k s8"),
    Mutant("S8", _S + "engine/lane.py", "if model.previous is None:", "if True:",
           "tests/reliability/test_swap.py -k rolled"),
    Mutant("S8 trial", _S + "manifest/regular_file.py", "flags | os.O_NONBLOCK", "flags", f"{_TRIAL} -k regular"),
    Mutant("S8 trial", _S + "manifest/regular_file.py", "if not stat.S_ISREG", "if False and stat.S_ISREG",
           f"{_TRIAL} -k regular"),
    Mutant("S8 trial", _S + "api/routes/models.py", "daemon=True", "daemon=False", f"{_TRIAL} -k sigterm"),
    Mutant("S9 images", "firmware_bridge/firmware/core/kws_image.c", "|| !owns_no_more(l) ||", "||",
           "tests/board/test_firmware.py -k not_have"),
    Mutant("S9 images", "firmware_bridge/firmware/core/kws_board.c",
           "if (payload > (int32_t)KWS_MAX_PAYLOAD)", "if (0)",
           "tests/board/test_packets.py -k beyond"),
    Mutant("S9", "firmware_bridge/kws_board/packets.py", "if zlib.crc32(body[:-4]) != struct",
           "if False and 1 != struct", "tests/board/test_packets.py"),
    Mutant("S12", _S + "host/log_format.py", "return _CREDENTIAL.sub(", "return text or _CREDENTIAL.sub(",
           f"{_TOKENS} -k s12"),
    Mutant("S13", _S + "api/guard.py", "default-src 'none'; script-src 'self'", "default-src *; script-src *",
           f"{_SECURITY} -k s13"),
    Mutant("S15", _S + "app.py", "ssl.TLSVersion.TLSv1_2", "ssl.TLSVersion.TLSv1", f"{_TOKENS} -k s15"),
    Mutant("commit before push", _S + "sinks/writer.py", "self._store.append(new, holes, self._positions.of(new))",
           "self._jobs.append((lambda: self._store.append(new), Future()))", f"{_LOG} -k on_the_disk"),
    Mutant("not held up", _S + "sinks/event_log.py", "self._delivery.pass_on(passing)", "self._writer.publish(passing)",
           "tests/sinks/test_delivery.py -k do_not_wait"),
    Mutant("uid", _S + "sinks/numbering.py", "if uid in seen or self._known(uid):", "if False:", f"{_LOG} -k twice"),
    Mutant("disk full", _S + "sinks/writer.py", "self._store.file.mark_all_logged(False)", "pass",
           "tests/reliability/test_disk_full.py -k killed"),
    Mutant("wrong clock", _S + "sinks/clock_guard.py", "return agreed and", "return True or",
           "tests/reliability/test_clock.py -k wrong_at_the_start"),
    Mutant("wrong clock", _S + "sinks/clock_guard.py", "<= APART_S", "<= 1e18", f"{_RETENTION} -k step"),
    Mutant("wrong clock", _S + "sinks/clock_guard.py", "wall_s > self._newest_s", "1", f"{_RETENTION} -k newest_row"),
    Mutant("wrong clock", _S + "sinks/space.py", "WHERE logged_at < ? ORDER BY logged_at LIMIT ?",
           "WHERE id <= (SELECT max(id) FROM detections WHERE logged_at < ?) LIMIT ?", f"{_RETENTION} -k 1970"),
    Mutant("wrong clock", _S + "sinks/expiry.py", "_log.info(", "_log.debug(", f"{_RETENTION} -k 1970"),
    Mutant("slow subscriber", _S + "sinks/subscribers.py", "if len(self._queue) >= QUEUE_MESSAGES or", "if False and",
           "tests/api/test_streams.py -k slow_subscriber_gets"),
    Mutant("overload", _S + "engine/stream.py", "self.dropped_samples += part.n", "pass",
           "tests/reliability/test_overload.py -k three_times"),
    Mutant("beginning", _S + "engine/scorer.py", "self.tail[slots] = self._silence", "pass",
           "tests/engine/test_engine.py -k as_if_zeros"),
    Mutant("beginning", _S + "core/detector.py", " or at_16k < self._settled_16k", "",
           "tests/integration/test_short_files.py -k full_level"),
    Mutant("standing alone", _S + "core/detector.py", "= found is not None and not found.alone", "= False",
           "tests/core/test_surroundings.py -k one_in_talk"),
    Mutant("standing alone", _S + "core/surroundings.py", "and speech >= self.speech", "",
           "tests/core/test_surroundings.py -k television"),
    Mutant("second look", _S + "engine/proposals.py",
           "        if scores is None:\n            self._agreed(proposal, verified=False)",
           "        if scores is None:\n            proposal.verdict = State.REJECTED",
           f"{_VERIFY} -k vetoes_nothing"),
    Mutant("second look", _S + "engine/proposals.py", "now_s - proposal.asked[0].at_s > longest_s", "False",
           f"{_VERIFY} -k falls_behind"),
    Mutant("second look", _S + "engine/verifier.py", " or not np.isfinite(scores).all()", "", f"{_VERIFY} -k vetoes"),
    Mutant("second look", _S + "engine/past_patches.py", "samples[: max(0, before)] = 0", "pass",
           f"{_VERIFY} -k to_the_bit"),
    Mutant("second look", _S + "engine/tick.py", "        if self._proposals.owes(stream.slot):\n            return",
           "        if False:\n            return", f"{_VERIFY} -k company"),
    Mutant("second look", _S + "manifest/consistency.py", "if label not in verifier.labels]", "if False]",
           f"{_VERIFY} -k does_not_suit"),
    Mutant("second look", _S + "engine/proposals.py",
           "                if proposal.asked:\n                    self._submit",
           "                if False:\n                    self._submit", f"{_VERIFY} -k however_the_audio"),
    Mutant("second look", _S + "engine/proposals.py",
           "if any(other.may_be_before(proposal, max(armed_s, d.decided_s)) for other in self._waiting):",
           "if False:", f"{_VERIFY} -k in_the_order"),
    Mutant("arming", _S + "engine/tick.py", "- (half.LAG if behind else 0)", "",
           f"{_ARMED} -k arms_in_time"),
    Mutant("arming", _S + "engine/tick.py", "key=lambda one: self._models.order[one[1].model.name]",
           "key=lambda one: 0", f"{_ARMED} -k chain"),
    Mutant("arming", _S + "core/detector.py", "        state.muted[i, c] |= unarmed\n", "",
           f"{_ARMED} -k end_either"),
    Mutant("arming", _S + "engine/tick.py", "self._models.arming.shift(stream.slot, round(by_16k))", "pass",
           f"{_ARMED} -k gap"),
    Mutant("arming", _S + "engine/proposals.py", "            proposal.arm.told = False",
           "            proposal.arm.told = True", f"{_ARMED} -k counts_only"),
    Mutant("arming", _S + "engine/live_settings.py", "            self.check(in_force)\n", "",
           f"{_ARMED} -k waits_for_itself"),
    Mutant("admission", _S + "engine/engine.py", ") > MAX_LOAD:", ") > 1e9:",
           "tests/reliability/test_overload.py -k too_many"),
    Mutant("second backend", _S + "engine/twin.py", "except Exception as e:", "except OSError as e:",
           "tests/engine/test_twin.py -k fails_alone"),
    Mutant("second backend", _S + "engine/twin.py", "if self._values and self._values + patches.size > WAITING_VALUES:",
           "if False:", "tests/engine/test_twin.py -k behind"),
    Mutant("resume, refused", _S + "api/audio_ws.py", "ingest.earlier.get(stream", "ingest.earlier.pop(stream",
           f"{_RESUME} -k refused_once"),
    Mutant("resume, refused", _S + "api/audio_socket.py",
           "        waits = old if old is not None and old.life.waiting else None\n",
           "        waits = None\n        if old is not None and old.life.waiting:\n            old.give_up()\n",
           f"{_RESUME} -k outlives"),
    Mutant("resume, refused", _S + "api/audio_socket.py", "            if comes_back:", "            if False:",
           f"{_RESUME} -k comes_back"),
    Mutant("resume, refused", _S + "api/audio_socket.py", "        if lost_s > MAX_GAP_S:", "        if False:",
           f"{_RESUME} -k belief"),
    Mutant("S8", _S + "backends/protobuf_wire.py", "        if tag > MAX_TAG:", "        if False:",
           "tests/conformance/test_bad_models.py -k spellings"),
    Mutant("resume, refused", _S + "api/ingest.py", "while len(self.earlier) > MOST_EARLIER:", "while False:",
           f"{_RESUME} -k so_many"),
    Mutant("places", _S + "api/places.py", "if mine >= free:", "if not free:", f"{_PLACES} -k leaves"),
    Mutant("places", _S + "api/live_ws.py", "places.one(grant.name,", 'places.one("",', f"{_PLACES} -k leaves"),
    Mutant("places", _S + "api/audio_socket.py", "if self.ingest.opened_too_often(self.owner, q.stream):", "if False:",
           f"{_PLACES} -k locks_nobody"),
    Mutant("owners", _S + "api/audio_socket.py", "(waits and waits.owner != self.owner)", "False",
           f"{_OWNERS} -k for_another"),
    Mutant("owners", _S + "api/audio_socket.py", "(resumed is None and self._waits_since_restart)", "False",
           f"{_OWNERS} -k its_own_token"),
    Mutant("owners", _S + "api/audio_socket.py", "if old.owner != self.owner and not old.life.waiting:", "if False:",
           f"{_OWNERS} -k overheard"),
    Mutant("owners", _S + "engine/engine.py", 'if kind == "websocket" and name in self.reserved:', "if False:",
           f"{_OWNERS} -k unplugged"),
    Mutant("kill -9", _S + "engine/resumed.py", "        if not self.decided_s:\n            return False",
           "        return False",
           "tests/reliability/test_restart.py -k kill"),
    Mutant("S4", _S + "api/live_ws.py", "if not grant.may_touch(stream):", "if False:", f"{_LIVE} -k some_streams"),
    Mutant("S14", _S + "engine/viewers.py", "if raw else frames.copy()", "if False else frames.copy()",
           f"{_LIVE} -k envelope"),
    Mutant("why", _S + "api/routes/detections.py", "not grant_of(request).may_touch(logged.detection.stream)", "False",
           f"{_LIVE} -k may_hear"),
    Mutant("why", _S + "engine/evidence.py", 'if spec.front_end.kind == "raw" else patch.copy()',
           "if False else patch.copy()",
           "tests/engine/test_evidence.py -k raw"),
    Mutant("watched server", _S + "host/watch.py", "if self._missed >= MISSED else before", "if False else before",
           f"{_WATCH} -k three_missed"),
    Mutant("watched, hostile", _S + "host/watch.py", "self._connection.settimeout(_left_s(self._deadline_s))",
           "self._connection.settimeout(TIMEOUT_S)", f"{_WATCH} -k fault_is and drips"),
    Mutant("watched, hostile", _S + "host/watch.py", "if self._left < 0:", "if False:",
           f"{_WATCH} -k fault_is and long"),
    Mutant("watched, hostile", _S + "host/watch.py", 'if not math.isfinite(numbers["load"]) or not', "if not",
           f"{_WATCH} -k fault_is and float"),
    Mutant("watched, hostile", _S + "host/watch.py", "text.encode()", "str(text)", f"{_WATCH} -k fault_is and text"),
    Mutant("watched, hostile", _S + "host/watch.py", "except Exception as e:\n            why",
           "except StatusError as e:\n            why", f"{_WATCH} -k thought_of"),
    Mutant("clients retry", _S + "client/retries.py", "self._wait_s = min(_LAST_RETRY_S, 2 * self._wait_s)", "pass",
           f"{_RETRIES} -k pauses"),
    Mutant("clients retry", _S + "client/retries.py", "        if not sent_away(code):", "        if True:",
           f"{_RETRIES} -k pauses"),
    Mutant("clients retry", _S + "client/retries.py", "{4400, 4401, 4403}", "{4400, 4401, 4403, 4429}",
           f"{_RETRIES} -k better_later"),
    Mutant("clients retry", _S + "client/service.py", "if c.close_code is None}", "}", f"{_RETRIES} -k sent_away"),
    Mutant("clients retry", _S + "api/audio_socket.py", "        if self.end_with(What.REFUSE, error):",
           "        self._comes_back = False\n        if self.end_with(What.REFUSE, error) and False:",
           f"{_RETRIES} -k sent_away"),
    Mutant("TLS, clients", _S + "client/service.py", "ssl or True if secure else None", "ssl if secure else None",
           "tests/api/test_tls.py -k verified_by_default"),
    Mutant("TLS, clients", _S + "client/service.py",
           "except SSLCertVerificationError:\n                raise\n            except OSError:", "except OSError:",
           "tests/api/test_tls.py -k vouches"),
    Mutant("output not taken", _S + "commands/terminal.py", 'self._printer.put(_printable(text) + "\\n")',
           'open(1, "w", closefd=False).write(text + "\\n")', f"{_TERMINAL} -k go_on and stdout"),
    Mutant("output not taken", _S + "host/printer.py", "self._printer.put(whole + newline)",
           "os.write(self._printer._fd, (whole + newline).encode())", f"{_TERMINAL} -k go_on and stderr"),
    Mutant("output not taken", _S + "host/printer.py", "while len(self._texts) > 1 and (", "while False and (",
           "tests/host/test_printer.py -k in_order"),
    Mutant("watchdog", _S + "host/systemd.py", "socket.MSG_DONTWAIT", "0", "tests/host/test_systemd.py -k not_read"),
    Mutant("watchdog", _S + "commands/running.py", "return self.runner.alive and", "return True or",
           "tests/host/test_systemd.py"),
    Mutant("log damaged", _S + "sinks/log_file.py", "{e}\"\n            raise",
           "\"\n            raise",
           "tests/sinks/test_damage.py -k who_asks"),
    Mutant("log damaged", _S + "sinks/salvage.py", "        if told[-1] < last:", "        if len(rows) == ROWS:",
           "tests/sinks/test_damage.py -k salvaged_and_set"),
    Mutant("log damaged", _S + "sinks/writer.py", "if self._mending.under_way:  #", "if False:  #",
           "tests/sinks/test_damage.py -k mark"),
    Mutant("log damaged", _S + "api/detections_ws.py", "except sqlite3.Error as e:", "except ZeroDivisionError as e:",
           "tests/reliability/test_log_lost.py -k answer"),
    Mutant("log removed", _S + "sinks/log_file.py", "self.damage or self._identity.fault()", "self.damage",
           "tests/sinks/test_damage.py -k though_nothing"),
    Mutant("log removed", _S + "sinks/writer.py", "if why := self._store.file.fault(new[-1].id if new else 0):",
           'if why := "":',
           "tests/sinks/test_damage.py -k commit_waits"),
    Mutant("backup", _S + "sinks/writer.py", "            self._store.file.given.note(self.last_id)\n", "",
           "tests/sinks/test_backup.py -k in_its_place"),
    Mutant("backup", _S + "sinks/log_file.py", "if given is None and not self.new:", "if False:",
           "tests/sinks/test_backup.py -k elsewhere"),
    Mutant("a fault of ours", _S + "engine/lane.py", "except Exception as e:  # also",
           "except BackendError as e:  # also",
           "tests/engine/test_tick_faults.py -k in_one_lane"),
    Mutant("a fault of ours", _S + "engine/tick.py", "            except Exception:\n                self._lose",
           "            except KeyError:\n                self._lose",
           "tests/engine/test_tick_faults.py -k in_one_stream"),
    Mutant("a fault of ours", _S + "engine/tick.py", "            stream.zeros_left = 0", "            pass",
           "tests/engine/test_tick_faults.py -k in_one_stream"),
    Mutant("reload, late", _S + "engine/models.py", "if not done.set_running_or_notify_cancel():", "if False:",
           "tests/engine/test_tick_faults.py -k in_time"),
    Mutant("followers", _S + "api/detections_ws.py", "with places.one(grant.name, address_of(ws)):", "if True:",
           "tests/api/test_counted.py -k followers"),
    Mutant("bounded inboxes", _S + "sinks/writer.py", "if len(self._inbox) > INBOX:", "if False:",
           f"{_LOG} -k holds_up"),
    Mutant("bounded inboxes", _S + "client/audio_sender.py", "if self._inbox.qsize() > INBOX_MESSAGES:", "if False:",
           "tests/api/test_counted.py -k does_not_take"),
    Mutant("live state", _S + "engine/viewers.py", "            self._tell(self._state(stream))",
           "            self._tell(StreamState(stream))", "tests/api/test_counted.py -k hide"),
    Mutant("retention", _S + "sinks/expiry.py", "                between()\n", "", f"{_RETENTION} -k commits_do_not"),
    Mutant("another log", _S + "sinks/event_log.py", "log_id not in (None, self.log_id) or", "",
           "tests/api/test_another_log.py"),
    Mutant("another log", _S + "sinks/reader.py", "            return after > self._last_id()",
           "            return False",
           "tests/api/test_another_log.py"),
    Mutant("another log", _S + "sinks/reader.py", "        if streams is None:\n            return after",
           "        if True:\n            return after", "tests/api/test_another_log.py"),
    Mutant("end of a sound", _S + "engine/dressing.py", "(start if end is None else end)", "start",
           "tests/engine/test_engine.py -k end_of_a_sound"),
    Mutant("end of a sound", _S + "sinks/schema.py", "at + end_s - start_s", "at", f"{_LOG} -k ends_of_older"),
    Mutant("order", _S + "transport/websocket_protocol.py", "free = self.queue.empty() and", "free =",
           "tests/transport/test_splitter.py -k overtakes"),
)  # fmt: skip


def passes(tests: str, folder: Path, *, tell: bool = False) -> bool:
    """Whether these tests pass with the packages in `folder`; `tell` why not."""
    packages = os.pathsep.join(str(folder / name) for name in ("service", "models", "firmware_bridge"))
    where, _, which = tests.partition(" -k ")
    words = [where, *(["-k", which] if which else [])]
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "PROOF": "", "PROOF_LOG": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return False
    if run.returncode not in (0, 1):
        raise SystemExit(f"pytest {tests}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    if run.returncode and tell:
        print(run.stdout[-3000:])
    return run.returncode == 0


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests still pass without the guard."""
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.guard) != 1:
        raise SystemExit(f"{mutant.row}: found {mutant.guard!r} {text.count(mutant.guard)} times in {mutant.file}")
    path.write_text(text.replace(mutant.guard, mutant.without))
    try:
        return passes(mutant.tests, folder)
    finally:
        path.write_text(text)


def main() -> None:
    """One line a guard."""
    wanted = set(sys.argv[1:])
    alive = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("service", "models", "firmware_bridge", "frontend"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        chosen = [m for m in MUTANTS if not wanted or m.row in wanted]
        for tests in sorted({m.tests for m in chosen}):
            if not passes(tests, folder, tell=True):
                raise SystemExit(f"pytest {tests}: fails with every guard in place")
        for mutant in chosen:
            lives = survives(mutant, folder)
            alive += [mutant] if lives else []
            print(
                f"{'SURVIVED' if lives else 'red':9} {mutant.row:20} {mutant.file}: {mutant.guard.strip()}", flush=True
            )
    print(f"{len(alive)} of {len(MUTANTS)} guards can be removed unnoticed")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
