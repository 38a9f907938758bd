// What a service manager hears of the arbiter's life (sd_notify(3)): it follows from what is said to the log.

import Config
import Linux

extension Arbiter {
    func tellServiceManager(of note: Note) {
        guard serviceManager != nil else { return }
        let lines: [String]
        switch note {
        case .ready(let workers): lines = ["READY=1", "MAINPID=\(Process.pid)", status("serving", workers)]
        case .workersWanted(let workers): lines = [status("serving", workers)]
        case .resting: lines = ["STATUS=resting: no workers until HUP"]
        case .reloading:
            // When it began: what comes later is the answer to this one (systemd.service(5), Type=notify-reload).
            let microseconds = Instant.now().nanoseconds / 1000
            lines = ["RELOADING=1", "MONOTONIC_USEC=\(microseconds)", "STATUS=reloading"]
        case .reloaded: lines = ["READY=1", status("serving", core.wanted)]
        case .reloadFailed(_, let reason, _, _):
            lines = ["READY=1", status("serving", core.wanted) + "; the last reload failed: \(reason.firstLine)"]
        case .stopping: lines = stopping
        case .cannotBoot(let reason): lines = ["STATUS=cannot start: \(reason.firstLine)"]
        case .successorReady(let pid): lines = ["MAINPID=\(pid)"]
        default: return
        }
        serviceManager?.tell(lines)
    }

    /// The service stops only with the last arbiter.
    private var stopping: [String] {
        core.successor == nil && origin == nil ? ["STOPPING=1", "STATUS=finishing what is open"] : []
    }

    private func status(_ what: String, _ workers: Int) -> String {
        "STATUS=\(what) with \(workers) worker\(workers == 1 ? "" : "s")"
    }

    /// Tells it that the loop still comes around, twice as often as it wants to hear it.
    mutating func pingServiceManager(at now: Instant) {
        guard let due = nextPing, now >= due, let interval = serviceManager?.watchdogMicroseconds else { return }
        serviceManager?.tell(["WATCHDOG=1"])
        nextPing = now.advanced(byMilliseconds: max(1, Int64(clamping: interval / 2000)))
    }
}

extension String {
    /// A status is one line.
    fileprivate var firstLine: Substring { prefix { !$0.isNewline } }
}
