import Config
import Control
import Linux
import Testing

@testable import Supervisor

@Suite("What the arbiter decides about certificates and ticket keys")
struct ArbiterCoreTLSTests {
    /// With workers 1…n that serve since 0.
    static func serving(_ workers: Int, ticketKeyDue: Instant? = nil) -> ArbiterCore {
        var settings = settings(workers: workers, timeout: 0)
        settings.tls = TLSSettings(certificateFiles: ["a.pem"])
        var core = ArbiterCore(settings: settings, ticketKeyDue: ticketKeyDue)
        _ = core.handle(.start, at: at(0))
        for serial in 1...UInt64(workers) {
            _ = core.handle(.spawned(Serial(serial), pid: Int32(serial) + 100), at: at(0))
            _ = core.handle(.report(Serial(serial), .ready), at: at(0))
        }
        return core
    }

    static let hours6: Int64 = 21_600_000

    @Test("HUP reads certificates, and new ones go to all workers at once, whatever routers do")
    func reloaded() {
        var core = Self.serving(3)
        // One boots, one leaves.
        _ = core.handle(.ended(1, .exited(1)), at: at(10))
        _ = core.handle(.report(2, .draining), at: at(11))
        #expect(core.handle(.signal(.hangUp), at: at(12)).deeds.first == .reloadTLS)
        let actions = core.handle(.tlsReloaded, at: at(12))
        #expect(actions.notes == [.tlsReloaded])
        #expect(actions.deeds == [.tell(3, .renewTLS), .tell(4, .renewTLS), .tell(5, .renewTLS)])
        #expect(core.handle(.report(3, .tlsRenewed), at: at(13)) == [])
        let failed = core.handle(.report(4, .tlsNotRenewed("no memory")), at: at(13))
        #expect(failed.count == 1)
        guard case .tlsNotRenewed(let worker, let reason)? = failed.notes.first else {
            Issue.record("nothing was said")
            return
        }
        #expect(worker.serial == 4 && reason == "no memory")
    }

    @Test("those that cannot be used are one line in the log, and nobody is told")
    func failed() {
        var core = Self.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(1))
        let actions = core.handle(.tlsReloadFailed("a.pem: cannot be read: Permission denied"), at: at(1))
        #expect(actions == [.say(.tlsReloadFailed("a.pem: cannot be read: Permission denied"))])
        let note = actions.notes.first
        #expect(note?.level == .error)
        #expect(
            note?.text(router: "r")
                == "certificates not reloaded: a.pem: cannot be read: Permission denied; the old ones go on")
    }

    @Test("each HUP reads them again, during a round as well; without TLS none does")
    func eachHangUp() {
        var core = Self.serving(2)
        for _ in 0..<3 { #expect(core.handle(.signal(.hangUp), at: at(1)).deeds.contains(.reloadTLS)) }
        var plain = ArbiterCoreTests.serving(2)
        #expect(!plain.handle(.signal(.hangUp), at: at(1)).deeds.contains(.reloadTLS))
        _ = core.handle(.signal(.terminate), at: at(2))
        #expect(core.handle(.signal(.hangUp), at: at(3)).deeds.isEmpty)
    }

    @Test("there is a new ticket key every six hours, and all workers get it")
    func rotation() {
        var core = Self.serving(2)
        #expect(core.nextDeadline == at(Self.hours6))
        #expect(core.handle(.tick, at: at(Self.hours6 - 1)) == [])
        #expect(core.handle(.tick, at: at(Self.hours6)) == [.renewTicketKey])
        #expect(
            core.handle(.ticketKeyRenewed, at: at(Self.hours6))
                == [.tell(1, .renewTicketKeys), .tell(2, .renewTicketKeys)])
        #expect(core.nextDeadline == at(2 * Self.hours6))
        // The machine slept for days: one key, not one for each time that was missed.
        #expect(core.handle(.tick, at: at(20 * Self.hours6 + 5)) == [.renewTicketKey])
        #expect(core.nextDeadline == at(21 * Self.hours6 + 5))
        #expect(core.handle(.tick, at: at(20 * Self.hours6 + 6)) == [])
    }

    @Test("upgrades do not put it off: a successor goes on with the time of the one before")
    func succession() {
        var core = Self.serving(1, ticketKeyDue: at(500))
        #expect(core.nextDeadline == at(500))
        #expect(core.handle(.tick, at: at(500)) == [.renewTicketKey])
        // One that is overdue is made at once, and the next one as long after as ever.
        let late = Self.serving(1, ticketKeyDue: at(-7))
        #expect(late.ticketKeyDue == at(Self.hours6))
        #expect(ArbiterCoreTests.serving(1, timeout: 0).nextDeadline == nil)
    }

    @Test("whoever is told to end makes no more keys")
    func ending() {
        var core = Self.serving(1)
        _ = core.handle(.signal(.quit), at: at(1))
        #expect(core.nextDeadline == nil)
        #expect(core.handle(.tick, at: at(Self.hours6)) == [])
    }
}
