import Config
import Glibc
import Linux
import Testing

@testable import Control

@Suite("Certificates and keys on their way to a worker")
struct TLSParcelTests {
    static let material = TLSMaterial(
        certificates: [
            .init(name: "/etc/a.crt with /etc/a.key", chain: Array("chain".utf8), key: [0, 255, 10]),
            .init(name: "b", chain: [], key: [UInt8](repeating: 7, count: 70_000), ocspResponse: [0x30, 0]),
            .init(name: "c", chain: [], key: [], ocspResponse: []),
        ],
        clientAuthorities: Array("authorities".utf8),
        ticketKeys: [
            [UInt8](repeating: 1, count: TLSMaterial.ticketKeyBytes),
            [UInt8](repeating: 2, count: TLSMaterial.ticketKeyBytes),
        ])

    @Test("what is packed is what is unpacked, again and again")
    func roundTrip() throws {
        let parcel = try TLSParcel(Self.material)
        for _ in 0..<2 { #expect(try parcel.material() == Self.material) }
        let none = TLSMaterial(certificates: [])
        #expect(try TLSParcel(none).material() == none)
    }

    @Test("as much as the arbiter reads fits, with a response for each certificate")
    func large() throws {
        let certificate = TLSMaterial.Certificate(
            name: "a", chain: [UInt8](repeating: 1, count: Limits.certificateBytesMax / Limits.certificatesMax),
            key: [],
            ocspResponse: [UInt8](repeating: 2, count: Limits.ocspResponseBytesMax))
        let material = TLSMaterial(
            certificates: [TLSMaterial.Certificate](repeating: certificate, count: Limits.certificatesMax))
        #expect(try TLSParcel(material).material() == material)
    }

    @Test("nobody can change it, and no program that is executed finds it")
    func sealed() throws {
        let parcel = try TLSParcel(Self.material)
        let raw = parcel.raw
        #expect(pwrite(raw, "x", 1, 0) == -1 && errno == EPERM)
        #expect(ftruncate(raw, 0) == -1 && errno == EPERM)
        #expect(ftruncate(raw, 1 << 20) == -1 && errno == EPERM)
        #expect(fcntl(raw, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test("what is no parcel is an error, and damage never traps")
    func damaged() throws {
        #expect(throws: InheritanceError.notADocument) { try TLSParcel.decoded([9]) }
        #expect(throws: InheritanceError.notADocument) { try TLSParcel.decoded([2, 0, 0, 0, 0]) }
        #expect(throws: InheritanceError.notADocument) { try TLSParcel.decoded([6, 0, 0, 0, 0]) }
        #expect(throws: InheritanceError.notADocument) { try TLSParcel.decoded([1, 0, 0, 0, 1]) }
        #expect(throws: InheritanceError.notADocument) { try TLSParcel.decoded([5, 0, 0, 0, 1, 0]) }
        let file = Descriptor(owning: open("/dev/null", O_RDONLY | O_CLOEXEC))
        #expect(try TLSParcel(file).material() == TLSMaterial(certificates: []))
        var random = Seeded(state: 4)
        let whole = TLSParcel.encoded(Self.material)
        for _ in 0..<500 {
            var bytes = Array(whole.prefix(.random(in: 0...200, using: &random)))
            for _ in 0..<Int.random(in: 1...6, using: &random) where !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? TLSParcel.decoded(bytes)
        }
    }

    @Test("it goes along with a command, close-on-exec, and whoever does not want it lets it go")
    func passed() throws {
        let ends = try ControlChannelTests.Ends.make()
        let parcel = try TLSParcel(Self.material)
        #expect(ends.arbiter.send(.renewTLS, number: 3, passing: parcel.raw) == .sent)
        #expect(ends.arbiter.send(.reopenLogs, number: 4) == .sent)
        #expect(ends.arbiter.send(.renewTLS, number: 5, passing: parcel.raw) == .sent)
        var passed: Descriptor?
        #expect(ends.worker.receive(&passed) == .message(Numbered(number: 3, message: .renewTLS)))
        var copy: Int32 = -1
        switch passed {
        case .some(let descriptor): copy = descriptor.raw
        case .none: Issue.record("nothing came along")
        }
        #expect(copy != parcel.raw && fcntl(copy, F_GETFD) & FD_CLOEXEC != 0)
        if let descriptor = passed.take() { #expect(try TLSParcel(descriptor).material() == Self.material) }
        // Closed with the parcel.
        #expect(fcntl(copy, F_GETFD) == -1)
        #expect(ends.worker.receive(&passed) == .message(Numbered(number: 4, message: .reopenLogs)))
        let hasNone = passed == nil
        #expect(hasNone)
        #expect(ends.worker.receive() == .message(Numbered(number: 5, message: .renewTLS)))
        #expect(fcntl(copy, F_GETFD) == -1)
    }
}
