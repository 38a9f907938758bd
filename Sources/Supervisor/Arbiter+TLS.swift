// Certificates, keys and ticket keys: read anew after HUP, renewed with time, and given to the workers.

import Config
import Control
import Linux
import Logging
import SystemPackage
import TLS

extension Arbiter {
    /// Reads the files again; the core hears what came of it.
    mutating func reloadTLS() {
        guard tls != nil else { return }
        do throws(TLSFailure) {
            if try tls!.reload() { events.append(.tlsReloaded) }
            for warning in tls!.takeWarnings() { log.warning("\(warning)") }
        } catch {
            scoreboard.count(.tlsReloadsFailed)
            events.append(.tlsReloadFailed(error.message))
        }
    }

    /// A failure leaves the old key in use until the next time.
    mutating func renewTicketKey() {
        guard tls != nil else { return }
        do throws(TLSFailure) {
            try tls!.renewTicketKey()
            events.append(.ticketKeyRenewed)
        } catch {
            log.error("no new ticket key: \(error)")
        }
    }

    /// The number of the parcel for a worker.
    var tlsParcel: Int32? {
        switch tls {
        case .some(let keeper): keeper.parcel.raw
        case .none: nil
        }
    }

    /// The ticket keys for a successor; without them its clients shake hands in full once.
    func ticketKeys() -> TLSParcel? {
        switch tls {
        case .some(let keeper):
            do throws(TLSFailure) {
                return try keeper.ticketKeys()
            } catch {
                log.warning("the ticket keys stay here: \(error)")
                return nil
            }
        case .none: return nil
        }
    }
}
